package main

import "github.com/alecthomas/kong"

// helpTexts are the longer help texts of flags, by their names in the flags' tags.
func helpTexts() kong.Vars {
	return kong.Vars{
		// receiver serve.
		"admin_listen": "Private listener: /livez, /readyz, /metrics, and the API: /v1/…, /openapi.yaml.",
		"callback_path": "Paths that OSS calls, separated by commas. A path may have parameters: " +
			"/oss/:session/:key, or /oss/* for all below it.",
		"buckets": "Accept callbacks for these buckets only, separated by commas. Default any.",
		"capture_refused": "Keep the last refused callbacks in this directory, as receiver doctor reads them: " +
			"at most 100 files and 16 MiB. They hold upload tokens. Each receiver needs its own. Default none.",
		"database_url_help": "PostgreSQL, or embedded for a private server in the data directory. " +
			"Better in UPCALL_DATABASE_URL, DATABASE_URL or a file that UPCALL_DATABASE_URL_FILE names.",
		"fields": "Names in another issuer's template: filename=object,height=imageInfo.height. " +
			"A variable may have several: object=object,filename=object.",
		"hooks_allow_cidrs": "Private networks that deliveries may go to, separated by commas, for example 10.1.0.0/16. " +
			"Default none: only public addresses.",
		"hooks_allow_http": "Let deliveries go to URLs of plain http.",
		"hooks_file":       "File that declares endpoints of hooks, which are made or changed at the start; see docs/hooks.md.",
		"hooks_schedule": "Pauses before a failed delivery is tried again, separated by commas; 0s is no retry. " +
			"Default 5s,5m,30m,2h,5h,10h,14h,20h,24h.",
		"listen":       "Public listener: the callback path, that of notifications if they are on, and nothing else.",
		"max_events":   "Record at most this many callbacks with the token of one upload; 0 is no limit.",
		"max_refusals": "Keep at most this many refused callbacks; 0 keeps none.",
		"confirm": "Which uploads to ask OSS about, whether their objects are what their callbacks said: off, all, or sample:0.01 " +
			"for one in a hundred. It needs credentials with the right oss:GetObject.",
		"confirm_grace": "How long after an object is found to be another one it is looked at again: a later upload may explain it.",
		"notify_grace":  "How long a notification waits for its callback before it becomes an event; 0s is not at all.",
		"notify_path":   "Path of OSS's event notifications, pushed by MNS or EventBridge.",
		"notify_token": "What EventBridge sends as x-eventbridge-signature-token. Default none: its events are refused. " +
			"Better in UPCALL_NOTIFY_TOKEN or a file that UPCALL_NOTIFY_TOKEN_FILE names.",
		"notify_topics": "Topics of MNS that notifications may come from, as OWNER/TOPIC with the number of the account, separated " +
			"by commas; see docs/notifications.md. Default none: off, unless there is a token.",
		"public_url": "The callback URL as OSS sees it, if a proxy changes the path.",
		"reconcile_every": "Compare each of the buckets with the log so often, for example 24h. Needs --buckets and access to OSS. " +
			"Default 0s: never; see docs/reconcile.md.",
		"reconcile_grace": "Leave objects alone that are younger than this: their callback may still be on its way.",
		"reply_body":      "Where the application's object goes: member (reply of our answer) or replace (it is the whole answer).",
		"reply_secret": "Secret that signs calls of the reply hook: whsec_ and Base64. " +
			"Better in UPCALL_REPLY_SECRET or a file that UPCALL_REPLY_SECRET_FILE names.",
		"reply_timeout": "How long to wait for the application; 0s is as long as OSS allows, 3.8s in all.",
		"reply_url": "Your application, which is asked after each recorded upload what to answer to the uploader; see docs/hooks.md. " +
			"Default none.",
		"retention": "Drop events that are this many days old, whole months at a time, for example 400d. " +
			"At least 31d. By default events are never dropped.",
		"retention_export": "Before a month is dropped, write it to Parquet files, day=YYYY-MM-DD/part-N.parquet, in a directory or " +
			"below oss://BUCKET/PREFIX, and read them back. If that fails, nothing is dropped. Default off.",
		"spool_dir": "Where callbacks wait while PostgreSQL is unavailable. Each receiver needs its own directory on a local disk. " +
			"Without one, callbacks are refused, and OSS tries its next URL.",
		"spool_max":      "How much disk space the spool may use.",
		"spool_min_free": "How much disk space the spool leaves free.",
		"stream_creds":   "File with the credentials for the servers of the stream. Default none.",
		"stream_max":     "How much the three streams may hold together, if the receiver makes them.",
		"stream_mode": "fallback: callbacks go to the stream while PostgreSQL does not take them, as they go to a spool. " +
			"front: they go there first, and are recorded from it, for bursts beyond PostgreSQL.",
		"stream_monitor": "Monitoring addresses of all servers of the stream, http://a:8222,http://b:8222,http://c:8222, to check that they " +
			"fsync before they acknowledge. Default none: that is unchecked.",
		"stream_name": "Name of the stream. All receivers of one database share one.",
		"stream_url": "Servers of a stream of NATS JetStream, nats://a,b,c, which takes the place of the spool; see docs/stream.md. " +
			"Better in UPCALL_STREAM_URL, or a file that UPCALL_STREAM_URL_FILE names, if it has a password. Default none.",
		"token": "Whether callbacks need an upload token: required, optional or off.",
		"token_keys": "Keys of the upload tokens, kid:secret[,kid:secret]; tokens made with any of them are accepted. " +
			"Better in UPCALL_TOKEN_KEYS or a file that UPCALL_TOKEN_KEYS_FILE names.",
		"trusted_proxies": "Networks of your own proxies, separated by commas, for example 10.0.0.0/8. " +
			"The sender of a callback is the last address in X-Forwarded-For that is not in one of them. " +
			"Default none: the header is ignored.",
		"trust_key_urls": "Exact URLs of additional public keys to trust, such as an emulator's, separated by commas.",

		// receiver hooks.
		"hook_clear": "Let this part of the filter match everything again, or send no headers: on, bucket, key-prefix, key-glob, " +
			"mime-type, var or header.",
		"hook_from": "Where in the log to begin: now, oldest, or the time of receipt of the first event, as 2026-11-27T08:00:00Z.",
		"hook_glob": "Only of keys that match this: * and ? stop at a slash, **/ is any folders, [a-z] and {png,jpg} as usual. " +
			"Repeat it for several.",
		"hook_header":    "Send this header, too. Repeat it for several.",
		"hook_in_flight": "Send at most this many requests at once, 1 to 64. With 1, deliveries arrive in the order of the log, retries apart.",
		"hook_keep":      "Sign with the former secret, too, for so long; at most 720h.",
		"hook_on": "What to tell of: recorded; disputed (the object is not what its callback said) and gone, which are found with " +
			"UPCALL_CONFIRM. Repeat it for several. Default recorded.",
		"hook_var": "Only of uploads with this value of a custom variable, named without x:. Repeat it for several variables.",

		// receiver reconcile.
		"reconcile_dry_run": "Record and note nothing, but say what there is to do. What the run before has found is no longer in " +
			"upcall.reconcile_objects then.",
		"reconcile_inventory": "Read this inventory of the bucket, a directory or oss://BUCKET/PREFIX with manifest.json, " +
			"instead of listing the bucket.",
		"reconcile_retention": "What is older is not recorded. As the receivers have it; by default all is.",
		"reconcile_since":     "Only objects that were stored from then on: 2026-11-26 for a day in UTC, or 2026-11-26T08:00:00Z.",

		// receiver export.
		"export_out": "A file that ends in .csv, .jsonl or .parquet, a directory, oss://BUCKET/PREFIX, or - for standard output. Required.",
		"export_since": "From this time of receipt on: 2026-11-26 for a day in UTC, or 2026-11-26T08:00:00Z for a file. " +
			"Default the oldest event.",
		"export_until": "Before this time of receipt. Default now.",

		// receiver keys.
		"key_id":   "Public part of the key: 1 to 32 lowercase letters, digits and hyphens. Generated by default.",
		"key_role": "What the key may do: viewer reads, operator changes endpoints of hooks, too.",

		// receiver analyst.
		"analyst_name": "Name of the role: 1 to 63 lowercase letters, digits and underscores, a letter first.",

		// receiver erase.
		"erase_var": "What has this value of a variable, a text or a number, named without x:. Quote it for the shell.",

		// receiver doctor.
		"at": "When the callback arrived, as 2006-01-02T15:04:05Z, to check upload tokens. " +
			"By default its Date header, or else now.",
		"callback_url": "The whole callback URL that OSS was given, to detect a lost path or query.",
		"capture":      "The captured request: an HTTP message, the output of curl -v or --trace, or a HAR file; - reads standard input.",
		"entry":        "Which request of the capture, counted from 1. By default the first that looks like a callback.",
	}
}
