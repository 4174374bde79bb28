"use strict";

// The page works without this file: it adds live events, and numbers that keep up by themselves.

const most = 200; // rows of the live table

function follow(table) {
  const body = table.tBodies[0];
  const state = document.getElementById("stream-state");
  const button = document.getElementById("stream-pause");
  const empty = document.getElementById("stream-empty");
  let source = null;
  let last = "";

  const cell = (row, text, className) => {
    const td = row.insertCell();
    td.textContent = text ?? "–";
    if (className) td.className = className;
    return td;
  };
  const add = (message) => {
    last = message.lastEventId;
    const e = JSON.parse(message.data);
    const row = body.insertRow(0);
    row.className = "new";
    cell(row, e.received_at.slice(0, 19).replace("T", " "));
    cell(row, e.bucket);
    const key = cell(row, "");
    const link = document.createElement("a");
    link.textContent = e.object_key ?? e.event_id;
    link.href = e.upload_id ? "/console/uploads/" + encodeURIComponent(e.upload_id)
      : "/console/uploads?" + new URLSearchParams({ event_id: e.event_id, received_at: e.received_at });
    key.replaceChildren(link);
    cell(row, e.size === null ? null : e.size.toLocaleString(), "n");
    cell(row, e.mime_type);
    cell(row, e.source);
    while (body.rows.length > most) body.deleteRow(-1);
    empty.hidden = true;
  };
  const open = () => {
    const url = new URL(table.dataset.src, location.href);
    if (last) url.searchParams.set("after", last);
    source = new EventSource(url);
    source.onopen = () => { state.textContent = state.dataset.open; };
    source.onerror = () => {
      state.textContent = state.dataset.lost;
      // The browser tries again by itself unless the answer was a refusal: then the session may have ended.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
    };
    source.addEventListener("upload", add);
    button.textContent = button.dataset.pause;
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    if (source) {
      source.close();
      source = null;
      state.textContent = state.dataset.paused;
      button.textContent = button.dataset.resume;
    } else {
      open();
    }
  });
  open();
}

function refresh(button) {
  let paused = false;
  button.hidden = false;
  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? button.dataset.resume : button.dataset.pause;
  });
  setInterval(async () => {
    const live = document.getElementById("live");
    if (paused || document.hidden || live.contains(document.activeElement)) return;
    try {
      const response = await fetch(location.href);
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      const next = page.getElementById("live");
      if (next) live.replaceWith(next); else if (response.redirected) location.reload();
    } catch { /* the receiver is away: what is shown stays */ }
  }, 1000 * Number(button.dataset.refresh));
}

const table = document.getElementById("stream");
if (table) follow(table);
const button = document.querySelector("[data-refresh]");
if (button) refresh(button);
