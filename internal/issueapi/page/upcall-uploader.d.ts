/** Why an upload failed. */
export class UploadError extends Error {
  constructor(kind: UploadError["kind"], message: string, status?: number);
  /**
   * - `cancelled`: by the user.
   * - `issuer`: the issuer did not allow the upload or could not be reached.
   * - `forbidden`: the bucket's CORS rules do not allow it.
   * - `refused`: OSS refused it; nothing is stored.
   * - `unrecorded`: OSS answered 203: the object is stored, and no row is recorded yet.
   * - `unreachable`: OSS could not be reached.
   * - `unknown`: the connection broke, and no row was found, or the issuer does not say whether there is one.
   */
  kind: "cancelled" | "issuer" | "forbidden" | "refused" | "unrecorded" | "unreachable" | "unknown";
  /** The HTTP status, or 0. */
  status: number;
}

export type State = "waiting" | "running" | "checking" | "done" | "failed" | "cancelled";

/** What is asked of the issuer for a file, beside its name, type and size. */
export interface UploadRequest {
  bucket?: string;
  /** The object key, or a function that makes it. Without it the policy's template does. */
  key?: string | ((file: File) => string);
  key_template?: string;
  content_type?: string;
  expires_in?: string;
  vars?: Record<string, string>;
}

/** The issuer's answer: of POST /v1/uploads, /v1/uploads/multipart or /v1/uploads/form. */
export interface Issued {
  upload_id: string;
  expires_at: string;
  method?: string;
  url?: string;
  headers?: Record<string, string>;
  fields?: Record<string, string>;
  key_prefix?: string;
  part_size?: number;
  parts?: Array<{ number: number; method: string; url: string; headers: Record<string, string> }>;
  complete?: { method: string; url: string; headers: Record<string, string> };
  abort?: { method: string; url: string; headers: Record<string, string> };
}

export interface UploadStatus {
  upload_id: string;
  status: "issued" | "uploaded" | "expired" | "revoked";
  event: Record<string, unknown> | null;
}

export interface Options {
  /** Where the issuer's API is, or a back end that passes its paths on. Default: the page's own origin. */
  endpoint?: string;
  /** Headers for the issuer or the back end, for example Authorization. */
  headers?: () => Record<string, string> | Promise<Record<string, string>>;
  /** Whether cookies are sent to the endpoint. Default "omit". */
  credentials?: RequestCredentials;
  /** How many files are sent at once. Default 5. */
  atOnce?: number;
  /** How often a request is sent that gets no answer, or one to try later. Default 6. */
  tries?: number;
  /** The longest Retry-After that is waited for, in seconds. Default 300. */
  longestWait?: number;
  /** Files of more bytes go in parts. Default 64 MiB. */
  partsAbove?: number;
  /** What is asked of the issuer for every file. */
  request?: UploadRequest;
  /** Issues an upload instead of the endpoint: for a back end with another interface. It throws an UploadError to refuse. */
  issue?: (file: File, what: { path: string; body: Record<string, unknown>; signal: AbortSignal; upload: Upload }) => Promise<Issued>;
  /** Looks up an upload instead of the endpoint. */
  lookUp?: (uploadId: string) => Promise<UploadStatus>;
  /** Called whenever the state, the message or the progress of an upload changes. */
  onchange?: (upload: Upload) => void;
}

/** A file on its way. */
export class Upload {
  readonly file: File;
  readonly state: State;
  /** The state in words. */
  readonly message: string;
  /** How many bytes OSS has. */
  readonly loaded: number;
  readonly error: UploadError | null;
  /** The receiver's answer: an object if it is JSON. */
  readonly answer: unknown;
  /** The recorded row, if it was looked up because OSS's answer was lost. */
  readonly event: Record<string, unknown> | null;
  readonly issued: Issued | null;
  /** Resolves when the upload is done, failed or cancelled. */
  readonly finished: Promise<Upload>;
  cancel(): void;
  /** Tries again after it failed or was cancelled. Looks for the row first, and sends nothing while the issuer does not say. */
  retry(request?: UploadRequest): void;
}

/** A queue of uploads. */
export class Uploader {
  constructor(options?: Options);
  readonly uploads: Upload[];
  add(files: Iterable<File> | ArrayLike<File>, request?: UploadRequest): Upload[];
  /** By default all that failed. */
  retry(uploads?: Upload[], request?: UploadRequest): void;
  /** By default all. */
  cancel(upload?: Upload): void;
  /** The issuer's status of an upload; undefined before it is issued. */
  status(upload: Upload, most?: number): Promise<UploadStatus | undefined>;
  /** Asks the issuer, with retries. */
  ask(method: string, path: string, body?: unknown, signal?: AbortSignal,
    options?: { most?: number; waits?: (seconds: number) => void }): Promise<any>;
}

/** Seconds to wait before the try after number n. */
export function retryDelay(retryAfter: string | null | undefined, n: number): number;
