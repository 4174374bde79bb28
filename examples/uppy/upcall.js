// Connects Uppy to Upcall's issuer: it issues each upload, tells 203 from success, and looks for the row if an answer is lost.
// It goes with @uppy/aws-s3 5, also in parts, and with 6, which has other options and cannot send parts to a bucket that calls back.

const partSize = (size) => Math.max(16 << 20, Math.ceil(size / 1000));
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const elements = (text, name) => [...new DOMParser().parseFromString(text, "application/xml").querySelectorAll(name)];
const message = (text) => elements(text, "Message")[0]?.textContent;

const unsure = "The back end does not say whether it was recorded; Retry asks again.";

// The browser sets the length itself, and does not let scripts set it.
const sendable = ({ method, url, headers }) => ({
  method, url, headers: Object.fromEntries(Object.entries(headers ?? {}).filter(([name]) => name !== "content-length")),
});

/**
 * Adds AwsS3 to Uppy. `endpoint` is a back end that passes /v1/uploads on to the issuer, and `vars` returns what is recorded with a
 * file. Files above `partsAbove` bytes go in parts.
 */
export function useUpcall(uppy, AwsS3, { endpoint = "/api", vars = () => ({}), partsAbove = 32 << 20, tries = 5 } = {}) {
  const issued = new Map(); // the issuer's answers by the id of the file, while OSS may have called back
  const byURL = new Map(); // and, of those in one piece, by the URL

  async function ask(path, body) {
    const name = crypto.randomUUID?.() ?? String(Math.random()); // so that a request which comes twice issues one upload
    for (let n = 1; ; n++) {
      const answer = await fetch(endpoint + path, {
        method: body ? "POST" : "GET", body: body && JSON.stringify(body), cache: "no-store",
        headers: body && { "Content-Type": "application/json", "Idempotency-Key": name },
      }).catch((error) => {
        if (n >= tries) throw error;
      });
      const text = await answer?.json().catch(() => null);
      if (answer?.ok && text) return text;
      if (n >= tries || answer && ![409, 429, 502, 503, 504].includes(answer.status)) {
        throw new Error(text?.detail || `The back end answered ${answer.status}.`);
      }
      await pause(Number(answer?.headers.get("Retry-After")) || n / 2);
    }
  }

  // issue lets the request end after the file was cancelled, because what it began in OSS can be aborted only with its answer.
  async function issue(file, path, more, signal) {
    const answer = await ask(path, {
      filename: file.name, content_type: file.type || "application/octet-stream", size: file.size, vars: vars(file), ...more,
    });
    if (signal?.aborted) {
      if (answer.abort) await drop(answer.abort);
      throw signal.reason;
    }
    issued.set(file.id, answer);
    if (answer.url) byURL.set(answer.url, answer);
    return answer;
  }

  // recorded looks for the row after each of some seconds: it alone tells if OSS's answer was lost or says no.
  async function recorded({ upload_id: id }, seconds) {
    for (const after of seconds) {
      await pause(after);
      if ((await ask(`/v1/uploads/${id}`)).event) return true;
    }
    return false;
  }

  // conclude returns if the request that stores an object was successful and the upload is recorded.
  async function conclude(upload, { status, text }) {
    if (status === 200) return;
    const mayBe = status === 0 || status === 203 || status >= 500;
    const found = mayBe && await recorded(upload, status ? [0, 1] : [0, 1, 2, 3]).catch(() => undefined);
    if (found) return;
    let why = `OSS refused the upload: ${message(text) ?? status}`;
    if (status === 0) why = "The connection to OSS broke.";
    if (status === 203) why = `Stored, but not recorded: the callback failed. ${message(text) ?? ""}`; // although it looks like success
    if (found === undefined) why += ` ${unsure}`;
    throw Object.assign(new Error(why), { source: { status } });
  }

  // uploadPartBytes sends a part, or a whole file, and returns its ETag. It is Uppy's own, but for 203 and for broken connections.
  const uploadPartBytes = ({ signature: { method = "PUT", url, headers }, body, size, onProgress, onComplete, signal }) =>
    new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(), upload = byURL.get(url);
      const stop = () => request.abort();
      request.open(method, url);
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.addEventListener("progress", onProgress);
      request.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
      signal?.addEventListener("abort", stop);
      request.addEventListener("loadend", async () => {
        signal?.removeEventListener("abort", stop);
        if (signal?.aborted) return;
        const etag = request.getResponseHeader("ETag") ?? "";
        try {
          if (upload) await conclude(upload, { status: request.status, text: request.responseText });
          else if (request.status !== 200 || !etag) throw Object.assign(new Error("OSS refused a part."), { source: request });
        } catch (error) {
          return reject(error);
        }
        onProgress({ loaded: size, lengthComputable: true });
        onComplete(etag);
        resolve({ ETag: etag });
      });
      request.send(body);
    });

  async function listParts(file) {
    const { list_parts: first, list_parts_next: next = [] } = issued.get(file.id);
    const pages = await Promise.all([first, ...next].map(async (page) => (await fetch(page.url, sendable(page))).text()));
    return pages.flatMap((page) => elements(page, "Part")).map((part) => ({
      PartNumber: Number(part.querySelector("PartNumber").textContent), ETag: part.querySelector("ETag").textContent,
      Size: Number(part.querySelector("Size").textContent),
    }));
  }

  async function completeMultipartUpload(file, { parts }) {
    const upload = issued.get(file.id);
    const list = parts.map(({ PartNumber, ETag }) =>
      `<Part><PartNumber>${PartNumber}</PartNumber><ETag>${ETag.replaceAll('"', "&#34;")}</ETag></Part>`).join("");
    const answer = await fetch(upload.complete.url, {
      ...sendable(upload.complete), body: `<CompleteMultipartUpload>${list}</CompleteMultipartUpload>`,
    }).catch(() => ({ status: 0, text: () => "" }));
    await conclude(upload, { status: answer.status, text: await answer.text() });
    return {};
  }

  // drop aborts an upload in parts: OSS bills for them until they are gone. It answers 404 if the upload was completed.
  const drop = (abort) => fetch(abort.url, sendable(abort));

  // A file that is removed and chosen again has the same id, and is another upload.
  uppy.on("file-removed", ({ id }) => {
    byURL.delete(issued.get(id)?.url);
    issued.delete(id);
  });

  // What failed may have been recorded since. Uppy passes over what is complete.
  uppy.addPreProcessor(async (ids) => {
    for (const id of ids) {
      const file = uppy.getFile(id), upload = issued.get(id);
      if (!upload || file.progress.uploadComplete) continue;
      const found = await recorded(upload, [0]).catch(() => undefined);
      if (found === undefined) uppy.emit("upload-error", file, new Error(unsure)); // sent again, it might be recorded twice
      if (!found) continue;
      uppy.emit("upload-success", file, { status: 200, body: {}, uploadURL: undefined });
      uppy.setFileState(id, { progress: { ...uppy.getFile(id).progress, complete: true } });
    }
  });

  if (parseInt(AwsS3.VERSION) < 6) {
    return uppy.use(AwsS3, {
      shouldUseMultipart: (file) => file.size > partsAbove,
      getChunkSize: ({ size }) => partSize(size),
      getUploadParameters: async (file, { signal } = {}) => sendable(await issue(file, "/v1/uploads", {}, signal)),
      createMultipartUpload: async (file, signal) => {
        const answer = await issue(file, "/v1/uploads/multipart", { part_size: partSize(file.size) }, signal);
        return { uploadId: answer.oss_upload_id, key: answer.key, abort: answer.abort };
      },
      abortMultipartUpload: (_, { abort }) => drop(abort), // Uppy calls it when the file is removed already
      signPart: (file, { partNumber }) => sendable(issued.get(file.id).parts[partNumber - 1]),
      listParts, completeMultipartUpload, uploadPartBytes,
    });
  }
  // Version 6 sends by itself and takes 203 for success, so the row decides.
  uppy.addPostProcessor(async (ids) => {
    await Promise.all(ids.map(async (id) => {
      const file = uppy.getFile(id);
      if (file.error || !issued.has(id)) return;
      const found = await recorded(issued.get(id), [0, 1, 2]).catch(() => undefined);
      if (found) return;
      const why = "Stored, but not recorded: the callback failed, or is not recorded yet.";
      uppy.emit("upload-error", file, new Error(found === undefined ? `Stored. ${unsure}` : why));
      uppy.setFileState(id, { progress: { ...uppy.getFile(id).progress, uploadComplete: false, complete: false } });
    }));
  });
  return uppy.use(AwsS3, {
    shouldUseMultipart: false,
    generateObjectKey: (file) => file.id, // the issuer makes the key
    signRequest: async ({ key: id }) => {
      const upload = await issue(uppy.getFile(id), "/v1/uploads", {});
      return { ...sendable(upload), key: upload.key };
    },
  });
}
