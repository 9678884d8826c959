// Upload pictures to the server, a few at a time, and show them as tiles.

import { forget, sendPicture } from "/api.js";

const AT_A_TIME = 3;
const NAMED = 3; // problems that a message spells out

let limit = Infinity;
let running = 0;
const waiting = [];
const unfinished = new Set();

export function limitBytes(bytes) {
  limit = bytes;
}

// Wait until no upload is under way.
export async function uploadsSettled() {
  while (unfinished.size) await Promise.all(unfinished);
}

export async function upload(file) {
  if (file.size > limit) {
    throw new Error(`It is larger than the limit of ${Math.floor(limit / 2 ** 20)} MB.`);
  }
  if (running >= AT_A_TIME) await new Promise((resolve) => waiting.push(resolve));
  else running += 1;
  try {
    return await sendPicture(file);
  } finally {
    if (waiting.length) waiting.shift()();
    else running -= 1;
  }
}

// Show a file as a tile of `list`; if it cannot be used, the tile is removed and an Error is thrown.
export async function addTile(list, file, onRemoved) {
  const tile = document.getElementById("tile").content.cloneNode(true).firstElementChild;
  const [image, button] = [tile.querySelector("img"), tile.querySelector("button")];
  button.setAttribute("aria-label", `Remove ${file.name}`);
  button.addEventListener("click", () => {
    const next = tile.nextElementSibling ?? tile.previousElementSibling;
    tile.remove();
    if (tile.dataset.picture) forget(tile.dataset.picture).catch(() => {});
    onRemoved(next?.querySelector("button"));
  });
  list.append(tile);
  try {
    const { picture, thumbnail } = await upload(file);
    if (!tile.isConnected) return await forget(picture); // removed meanwhile
    [tile.dataset.picture, image.src, image.alt] = [picture, thumbnail, file.name];
  } catch (error) {
    tile.remove();
    throw new Error(`${file.name}: ${error.message}`);
  }
}

// Do `work` for each file; `place` shows all problems in one message.
export async function forEachFile(files, place, work) {
  showMessage(place, "");
  const all = Promise.allSettled(files.map(work));
  unfinished.add(all);
  const done = await all;
  unfinished.delete(all);
  const problems = done.filter((one) => one.status === "rejected").map((one) => one.reason.message);
  const more = problems.length - NAMED;
  const lines = problems.slice(0, NAMED);
  if (more > 0) lines.push(`And ${more} more like ${more > 1 ? "these" : "this"}.`);
  showMessage(place, lines.join("\n"));
}

export function showMessage(place, text) {
  place.textContent = text;
  place.hidden = !text;
}
