import AwsS3 from "@uppy/aws-s3";
import Uppy from "@uppy/core";
import { useUpcall } from "./upcall.js";

const $ = (id) => document.getElementById(id);
const uppy = new Uppy();
useUpcall(uppy, AwsS3, { vars: () => ({ album: $("album").value }) });

// One line a file, as Uppy's state has it.
uppy.on("state-update", () => {
  $("files").replaceChildren(...uppy.getFiles().map((file) => {
    const line = document.createElement("li");
    const { uploadStarted, uploadComplete, percentage } = file.progress;
    line.className = file.error ? "failed" : uploadComplete && !file.progress.postprocess ? "recorded" : "";
    line.textContent = `${file.name}: ${file.error || (line.className ? "recorded" : uploadStarted ? `${percentage ?? 0} %` : "waiting")}`;
    return line;
  }));
  $("retry").hidden = !uppy.getFiles().some((file) => file.error);
});
$("choose").addEventListener("change", () => {
  uppy.addFiles([...$("choose").files].map((file) => ({ name: file.name, type: file.type, data: file })));
  $("choose").value = "";
  uppy.upload();
});
$("retry").addEventListener("click", () => uppy.retryAll());
$("cancel").addEventListener("click", () => uppy.cancelAll());
