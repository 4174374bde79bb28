// Uploads files straight from a page to OSS, several at a time, and tells what was recorded. An ES module without
// dependencies; its types are in upcall-uploader.d.ts. The issuer serves both.

/** Why an upload failed. `kind` is one of cancelled, issuer, forbidden, refused, unrecorded, unreachable and unknown. */
export class UploadError extends Error {
  constructor(kind, message, status = 0) {
    super(message);
    this.name = "UploadError";
    this.kind = kind;
    this.status = status;
  }
}

// The issuer is asked for a row lookUpTries times if the row is only shown, and decidingTries times, which takes about five minutes,
// if it decides whether the file failed: a file that was recorded but is shown as failed may be sent again, and recorded twice.
const lookUpTries = 3, decidingTries = 15;
const notKnown = "The issuer does not say whether it was recorded; Retry asks again.";
const notClear = "The row that the issuer shows may be of another file; Retry sends this one again.";
const partsAtOnce = 3;
const never = new AbortController().signal;

const defaults = {
  endpoint: "", headers: () => ({}), atOnce: 5, tries: 6, longestWait: 300, partsAbove: 64 * 1024 * 1024,
  request: {}, onchange: () => {},
};

// pause waits for some seconds, or until the signal aborts.
const pause = (seconds, signal) => new Promise((resolve, reject) => {
  if (signal.aborted) return reject(signal.reason);
  const stop = () => { clearTimeout(timer); reject(signal.reason); };
  const timer = setTimeout(() => { signal.removeEventListener("abort", stop); resolve(); }, seconds * 1000);
  signal.addEventListener("abort", stop, { once: true });
});

/**
 * How many seconds to wait before a request is sent again: what Retry-After says, in seconds or as a date, or else a time
 * that grows with each try.
 */
export function retryDelay(retryAfter, n) {
  const seconds = /^\d+$/.test(retryAfter || "") ? Number(retryAfter) : (Date.parse(retryAfter || "") - Date.now()) / 1000;
  return seconds >= 0 ? seconds : Math.min(2 ** n, 30) * (0.5 + Math.random() / 2);
}

// reasons returns all reasons of a problem document.
function reasons(problem) {
  if (!Array.isArray(problem.errors) || problem.errors.length < 2) return problem.detail || problem.title;
  return problem.errors.map(e => (e.field ? e.field + " " : "") + e.detail).join("; ");
}

// uuid names a request, so that it is answered once however often it is sent. randomUUID is there over https alone.
const uuid = () => crypto.randomUUID ? crypto.randomUUID()
  : [...crypto.getRandomValues(new Uint8Array(16))].map(b => b.toString(16).padStart(2, "0")).join("");

const eventID = u => (u.event || u.answer || {}).event_id;

const xml = (text, name) => {
  const found = new DOMParser().parseFromString(text, "application/xml").querySelector(name);
  return found && found.textContent;
};

const escapeXML = text => text.replace(/[&<>"']/g, c => "&#" + c.charCodeAt(0) + ";");

// send sends one request to OSS. It uses XHR, because fetch does not report upload progress.
const send = (to, body, signal, progress = () => {}) => new Promise((resolve, reject) => {
  if (signal.aborted) return reject(signal.reason);
  let sent = 0;
  const request = new XMLHttpRequest();
  const stop = () => request.abort();
  request.open(to.method, to.url);
  // The browser sets the length itself, to the body's size, and does not let scripts set it.
  for (const [name, value] of Object.entries(to.headers || {})) if (name !== "content-length") request.setRequestHeader(name, value);
  request.upload.addEventListener("progress", e => {
    sent = e.loaded;
    if (e.lengthComputable) progress(e.loaded);
  });
  request.addEventListener("loadend", () => signal.removeEventListener("abort", stop));
  request.addEventListener("load", () => resolve({
    status: request.status, text: request.responseText, retryAfter: request.getResponseHeader("Retry-After"),
    etag: request.getResponseHeader("ETag"),
  }));
  request.addEventListener("error", () =>
    (sent ? Promise.resolve(new UploadError("unknown", "The connection to OSS broke.")) : unsent(to)).then(reject));
  request.addEventListener("abort", () => reject(signal.reason));
  signal.addEventListener("abort", stop, { once: true });
  request.send(body);
});

// unsent says why nothing of a body was sent. The browser does not tell scripts, but it lets them ask OSS something whose
// answer they cannot read: if OSS answers that, CORS is the cause.
async function unsent(to) {
  try { await fetch(new URL("/", to.url), { mode: "no-cors", credentials: "omit", cache: "no-store" }); }
  catch { return new UploadError("unreachable", "OSS could not be reached."); }
  const names = Object.keys(to.headers || {}).filter(name => name !== "content-length").join(", ");
  return new UploadError("forbidden", "The bucket's CORS rules do not allow this page to upload. One must allow the origin " +
    location.origin + ", the method " + to.method + (names ? " and the headers " + names : "") + ".");
}

/** A file on its way. Its state is waiting, running, checking, done, failed or cancelled. */
export class Upload {
  constructor(uploader, file, request) {
    this.uploader = uploader;
    this.file = file;
    this.request = request;
    this.state = "waiting";
    this.message = "Waiting";
    this.loaded = 0;
    this.error = null;
    this.answer = null; // of the receiver, parsed if it is JSON
    this.event = null;  // the recorded row, where only it told that the upload was recorded
    this.issued = null; // the issuer's answer while OSS may have called back for it
    this.etags = new Map();
    this.merged = false; // whether OSS has put the parts together, and has none any more
    this.stop = new AbortController();
    this.finished = new Promise(resolve => { this.finish = resolve; });
  }

  /** Cancels the upload. What is already stored and recorded stays. */
  cancel() { this.uploader.cancel(this); }

  /** Tries an upload again that failed or was cancelled: it first looks for the row, and sends only parts that are missing. */
  retry(request) { this.uploader.retry([this], request); }

  say(message, state = "running") {
    this.message = message;
    this.state = state;
    this.uploader.options.onchange(this);
    if (state === "done" || state === "failed" || state === "cancelled") this.finish(this);
  }

  progress(loaded) {
    this.loaded = loaded;
    this.uploader.options.onchange(this);
  }
}

/** A queue of uploads. See upcall-uploader.d.ts for the options. */
export class Uploader {
  constructor(options = {}) {
    this.options = { ...defaults, ...options };
    this.uploads = []; // everything that was added, in order
    this.queue = [];
    this.running = 0;
    this.told = new Set(); // the ids of the events of uploads that are done
    this.notBefore = 0; // when the issuer may be asked again: its rate limit is for all files together
  }

  /** Adds files to the queue, and returns an Upload for each. */
  add(files, request = {}) {
    const added = Array.from(files, file => new Upload(this, file, { ...this.options.request, ...request }));
    this.uploads.push(...added);
    this.#begin(added);
    return added;
  }

  /** Tries uploads again, by default all that failed. */
  retry(uploads = this.uploads.filter(u => u.state === "failed"), request) {
    const again = uploads.filter(u => u.state === "failed" || u.state === "cancelled");
    for (const u of again) {
      u.request = request ? { ...this.options.request, ...request } : u.request;
      u.error = null;
      u.stop = new AbortController();
      u.finished = new Promise(resolve => { u.finish = resolve; });
    }
    this.#begin(again);
  }

  /** Cancels an upload, by default all. */
  cancel(upload) {
    for (const u of upload ? [upload] : [...this.uploads]) {
      if (this.queue.includes(u)) {
        this.queue.splice(this.queue.indexOf(u), 1);
        u.error = new UploadError("cancelled", "Cancelled");
        u.say("Cancelled", "cancelled");
      } else if (u.state === "running") u.stop.abort(new UploadError("cancelled", "Cancelled"));
    }
  }

  /** Looks up an upload's status and event, or returns undefined if the issuer does not say. */
  async status(upload, most = lookUpTries) {
    if (!upload.issued) return undefined;
    return this.ask("GET", "/v1/uploads/" + encodeURIComponent(upload.issued.upload_id), undefined, never, { most });
  }

  #begin(some) {
    for (const u of some) {
      u.loaded = 0;
      u.say("Waiting", "waiting");
      this.queue.push(u);
    }
    this.#next();
  }

  #next() {
    while (this.running < this.options.atOnce && this.queue.length) {
      this.running++;
      this.#run(this.queue.shift()).finally(() => { this.running--; this.#next(); });
    }
  }

  /** Asks the issuer, several times if that may help. */
  async ask(method, path, body, signal = never, { most = this.options.tries, waits = () => {} } = {}) {
    const name = body && uuid();
    for (let n = 0; ; n++) {
      for (let left; (left = this.notBefore - Date.now()) > 0;) {
        waits(Math.ceil(left / 1000));
        await pause(left / 1000, signal);
      }
      let response;
      try {
        response = await fetch(this.options.endpoint + path, {
          method, body: body && JSON.stringify(body), cache: "no-store", credentials: this.options.credentials || "omit", signal,
          headers: { ...await this.options.headers(), ...(body && { "Content-Type": "application/json", "Idempotency-Key": name }) },
        });
      } catch (e) {
        if (signal.aborted) throw signal.reason;
        if (n + 1 >= most) throw new UploadError("issuer", "The issuer could not be reached.");
        await pause(retryDelay("", n), signal);
        continue;
      }
      const answer = await response.json().catch(() => null);
      if (signal.aborted) throw signal.reason;
      if (response.ok && answer) return answer;
      const later = retryDelay(response.headers.get("Retry-After"), n);
      // A request over the rate is one that will be answered, so it does not count. 409 is one that is being answered.
      const again = response.status === 429 || n + 1 < most && (response.ok || [409, 502, 503, 504].includes(response.status));
      if (!again || later > this.options.longestWait) {
        throw new UploadError("issuer", answer && reasons(answer) || "The issuer answered " + response.status + ".", response.status);
      }
      if (response.status === 429 || response.status === 503) this.notBefore = Math.max(this.notBefore, Date.now() + later * 1000);
      else await pause(later, signal);
    }
  }

  async #run(u) {
    try {
      // The upload before may have been recorded since, although it failed here. While nobody says, it is not sent again: that
      // might record it twice. Of parts that were never completed, OSS cannot have called back.
      if (u.issued && !(u.issued.parts && u.etags.size < u.issued.parts.length)) {
        const there = await this.#found(u, [0]);
        if (there) return;
        if (there === undefined) throw new UploadError("unknown", notKnown);
      }
      if (!(u.issued && u.issued.parts && !u.merged && Date.parse(u.issued.expires_at) > Date.now() + 60_000)) {
        u.say("Requesting a URL");
        const inParts = u.file.size > this.options.partsAbove;
        const { key, ...rest } = u.request;
        const body = {
          ...rest, ...(key && { key: typeof key === "function" ? key(u.file) : key }),
          filename: u.file.name, content_type: rest.content_type || u.file.type || "application/octet-stream", size: u.file.size,
        };
        const path = "/v1/uploads" + (inParts ? "/multipart" : "");
        const waits = seconds => u.say("Too many requests; trying again in " + seconds + " s");
        // Until there is another, the upload before remains to be asked about.
        u.issued = this.options.issue ? await this.options.issue(u.file, { path, body, signal: u.stop.signal, upload: u })
          : await this.ask("POST", path, body, u.stop.signal, { waits });
        u.merged = false;
        u.etags.clear();
      }
      await this.#upload(u);
    } catch (e) {
      u.error = e instanceof UploadError ? e : new UploadError("unknown", e && e.message || String(e));
      if (u.error.kind === "cancelled") u.say("Cancelled", "cancelled");
      else u.say(u.error.message, "failed");
    }
  }

  async #upload(u) {
    let failure, answered = false, mayBeStored = true;
    try {
      const answer = u.issued.parts ? await this.#sendParts(u) : await this.#try(u, this.#single(u), this.#body(u), "Uploading");
      answered = true;
      if (answer.status === 200) return this.#succeed(u, answer.text);
      // 203 looks like success, but it means that the object is stored and the callback failed, so that most likely no
      // row was recorded.
      failure = answer.status === 203
        ? new UploadError("unrecorded", ["Stored, but not recorded: the callback failed.", xml(answer.text, "Message"),
          "If the receiver takes OSS's event notifications or runs reconcile, the upload will be recorded by a notification within " +
          "minutes, or by the next run. Retry looks for it first."].filter(Boolean).join(" "), 203)
        : new UploadError("refused", "OSS refused the upload: " + (xml(answer.text, "Message") || "status " + answer.status), answer.status);
      mayBeStored = answer.status === 203 || answer.status >= 500 || answer.merging;
      if (mayBeStored && answer.status !== 203) failure.kind = "unknown";
    } catch (e) {
      failure = e; // OSS may have stored the file and called back all the same
      answered = e.kind === "forbidden";
      if (e.unmerged) mayBeStored = false;
    }
    if (!mayBeStored) {
      if (failure.kind === "cancelled" && u.issued.abort) this.#abort(u);
      else if (!u.issued.parts) u.issued = null;
      throw failure;
    }
    // OSS calls back for five seconds at most, and has done so before it answers.
    const there = await this.#found(u, answered ? [0, 1] : [0, 1, 2, 3]);
    if (there) return;
    if (there !== false && failure.kind !== "cancelled") failure.message += " " + (there === null ? notClear : notKnown);
    throw failure;
  }

  // single is the request of an upload in one piece: a presigned PUT, or a form.
  #single(u) { return u.issued.fields ? { method: u.issued.method || "POST", url: u.issued.url } : u.issued; }

  #body(u) {
    if (!u.issued.fields) return u.file;
    const form = new FormData();
    for (const [name, value] of Object.entries(u.issued.fields)) form.append(name, value);
    form.append("file", u.file, u.file.name); // the last field, as OSS demands
    return form;
  }

  // try sends a request to OSS until OSS has an answer other than to try later.
  async #try(u, to, body, doing, progress = loaded => u.progress(Math.min(loaded, u.file.size))) {
    for (let n = 1; ; n++) {
      progress(0);
      if (doing) u.say(doing);
      const answer = await send(to, body, u.stop.signal, progress);
      const later = retryDelay(answer.retryAfter, n);
      if (n >= this.options.tries || later > this.options.longestWait || answer.status !== 429 && answer.status !== 503) return answer;
      u.say("OSS is busy; trying again in " + Math.ceil(later) + " s");
      await pause(later, u.stop.signal);
    }
  }

  // sendParts sends the parts that OSS does not have, and completes the upload. Only then OSS calls back: what fails before is
  // marked as unmerged.
  async #sendParts(u) {
    const { parts, part_size: size, complete } = u.issued;
    const loaded = new Map();
    const report = (number, bytes) => {
      loaded.set(number, bytes);
      u.progress([...loaded.values()].reduce((sum, n) => sum + n, 0));
    };
    const slice = part => u.file.slice((part.number - 1) * size, part.number * size);
    const left = parts.filter(part => {
      if (u.etags.has(part.number)) report(part.number, slice(part).size);
      return !u.etags.has(part.number);
    });
    u.say("Uploading");
    const failed = new AbortController();
    const work = async () => {
      for (let part; !failed.signal.aborted && (part = left.shift());) {
        try { u.etags.set(part.number, await this.#sendPart(u, part, slice(part), report)); }
        catch (e) { failed.abort(); throw e; }
      }
    };
    const results = await Promise.allSettled(Array.from({ length: partsAtOnce }, work));
    const broken = results.find(r => r.status === "rejected");
    if (broken) {
      broken.reason.unmerged = true;
      throw broken.reason;
    }
    const document = "<CompleteMultipartUpload>" + parts.map(part => "<Part><PartNumber>" + part.number + "</PartNumber><ETag>" +
      escapeXML(u.etags.get(part.number)) + "</ETag></Part>").join("") + "</CompleteMultipartUpload>";
    const answer = await this.#try(u, complete, document, "Completing", () => {});
    u.merged = answer.status < 300 || answer.status === 404;
    // If the answer to an earlier try was lost, the upload is not there any more, but the object may be.
    return { ...answer, merging: answer.status === 404 };
  }

  // sendPart sends a part, again if the connection breaks: nothing is stored twice by that.
  async #sendPart(u, part, body, report) {
    for (let n = 1; ; n++) {
      let answer;
      try { answer = await this.#try(u, part, body, "", loaded => report(part.number, loaded)); }
      catch (e) {
        if (e.kind === "cancelled" || e.kind === "forbidden" || n >= this.options.tries) throw e;
        await pause(retryDelay("", n), u.stop.signal);
        continue;
      }
      if (answer.status === 200 && answer.etag) return answer.etag;
      if (answer.status === 200) {
        throw new UploadError("forbidden", "The bucket's CORS rules hide the header ETag, without which parts cannot be put together. " +
          "Add it to ExposeHeader.");
      }
      if (answer.status < 500 || n >= this.options.tries) {
        throw new UploadError("refused", "OSS refused a part: " + (xml(answer.text, "Message") || "status " + answer.status), answer.status);
      }
      await pause(retryDelay(answer.retryAfter, n), u.stop.signal);
    }
  }

  // abort has OSS drop the parts of an upload that was cancelled.
  #abort(u) {
    const { abort } = u.issued;
    u.issued = null;
    u.etags.clear();
    send(abort, null, never).catch(() => {}); // OSS bills for the parts until the bucket's rule removes them
  }

  // found asks the issuer after each of some seconds whether the upload was recorded: if OSS's answer was lost or says no,
  // only the row tells. It returns undefined if the issuer does not say, which 404 does not either: the key may be another. It
  // returns null if the row may be of another file under the same form.
  async #found(u, seconds) {
    let others = false;
    for (const after of seconds) {
      u.say("Checking whether it was recorded", "checking");
      await pause(after, never);
      try {
        const state = await this.#lookUp(u);
        if (state.event && this.#isOf(u, state.event)) {
          u.event = state.event;
          this.#succeed(u, "", "Uploaded and recorded");
          return true;
        }
        others = Boolean(state.event); // the latest is shown, and one before may be this file's
      } catch { return undefined; }
    }
    return others ? null : false;
  }

  // isOf returns whether a row is of this file for certain. One form may serve several, and those of the same size, and behind a
  // prefix of the same name, have rows that look alike.
  #isOf(u, event) {
    const { upload_id: id, fields, key_prefix: prefix } = u.issued;
    return !fields || event.size === u.file.size && !this.told.has(event.event_id) &&
      (!prefix || event.object_key === prefix + u.file.name) &&
      !this.uploads.some(other => other !== u && other.issued && other.issued.upload_id === id && !eventID(other) &&
        other.file.size === u.file.size && (!prefix || other.file.name === u.file.name));
  }

  #lookUp(u) { return this.options.lookUp ? this.options.lookUp(u.issued.upload_id) : this.status(u, decidingTries); }

  #succeed(u, text, message) {
    try { u.answer = text ? JSON.parse(text) : null; } catch { u.answer = text; }
    u.loaded = u.file.size;
    this.told.add(eventID(u));
    // If the database is unavailable, the receiver keeps the callback and records it later.
    u.say(message || { postgres: "Uploaded and recorded", spool: "Uploaded; it will be recorded shortly",
      stream: "Uploaded; it will be recorded shortly" }[u.answer && u.answer.durable] || "Uploaded, and reported to the receiver", "done");
  }
}
