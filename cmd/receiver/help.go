package main

import "github.com/alecthomas/kong"

// helpTexts are the longer help texts of flags, by their names in the flags' tags.
func helpTexts() kong.Vars {
	return kong.Vars{
		// receiver serve.
		"admin_listen": "Private listener: /livez, /readyz, /metrics.",
		"callback_path": "Paths that OSS calls, separated by commas. A path may have parameters: " +
			"/oss/:session/:key, or /oss/* for all below it.",
		"buckets": "Accept callbacks for these buckets only, separated by commas. Default any.",
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
		"listen":       "Public listener: the callback path and nothing else.",
		"max_events":   "Record at most this many callbacks with the token of one upload; 0 is no limit.",
		"max_refusals": "Keep at most this many refused callbacks; 0 keeps none.",
		"public_url":   "The callback URL as OSS sees it, if a proxy changes the path.",
		"retention": "Drop events that are this many days old, whole months at a time, for example 400d. " +
			"At least 31d. By default events are never dropped.",
		"spool_dir": "Where callbacks wait while PostgreSQL is unavailable. Each receiver needs its own directory on a local disk. " +
			"Without one, callbacks are refused, and OSS tries its next URL.",
		"spool_max":      "How much disk space the spool may use.",
		"spool_min_free": "How much disk space the spool leaves free.",
		"token":          "Whether callbacks need an upload token: required, optional or off.",
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
		"hook_on": "What to tell of: recorded, disputed (the object is not what its callback said), gone. Repeat it for several. " +
			"Default recorded.",
		"hook_var": "Only of uploads with this value of a custom variable, named without x:. Repeat it for several variables.",

		// receiver doctor.
		"at": "When the callback arrived, as 2006-01-02T15:04:05Z, to check upload tokens. " +
			"By default its Date header, or else now.",
		"callback_url": "The whole callback URL that OSS was given, to detect a lost path or query.",
		"capture":      "The captured request: an HTTP message, the output of curl -v or --trace, or a HAR file; - reads standard input.",
		"entry":        "Which request of the capture, counted from 1. By default the first that looks like a callback.",
	}
}
