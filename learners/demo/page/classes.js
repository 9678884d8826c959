// The classes: cards with a name and tiles. Their state is the document itself; nothing is kept twice.

import { forget } from "/api.js";
import { cameraFor } from "/camera.js";
import { accept, withoutLitter } from "/files.js";
import { addTile, forEachFile } from "/uploads.js";

const COLOURS = 8; // of page.css
const box = document.getElementById("classes");
let added = 0;
let changed = () => {};

export function onChange(call) {
  changed = call;
}

export function cards() {
  return [...box.children].map((card) => ({
    card,
    name: nameOf(card).value.trim(),
    input: nameOf(card),
    choose: card.querySelector(".choose"),
    colour: card.dataset.colour,
    pictures: [...card.querySelectorAll("[data-picture]")].map((tile) => tile.dataset.picture),
  }));
}

export function addClass(name) {
  const card = document.getElementById("class-card").content.cloneNode(true).firstElementChild;
  card.dataset.colour = nextColour();
  added += 1;
  const input = nameOf(card);
  input.value = name ?? `Class ${added}`;
  card.dataset.given = name ?? input.value;
  input.addEventListener("focus", () => input.value === card.dataset.given && input.select());
  input.addEventListener("input", () => { label(card); changed(); });
  card.querySelector(".remove").addEventListener("click", () => removeClass(card));
  accept(card, {
    choose: card.querySelector(".choose"),
    input: card.querySelector("input[type=file]"),
    take: (entries) => addPictures(card, withoutLitter(entries).map(({ file }) => file)),
  });
  cameraFor(card.querySelector(".photograph"), {
    title: () => `Pictures of ${input.value}`,
    take: (file) => addPictures(card, [file]),
  });
  box.append(card);
  label(card);
  changed();
  return card;
}

export function addFolders(entries) {
  const byFolder = new Map();
  for (const { file, folder } of withoutLitter(entries)) {
    byFolder.set(folder, [...(byFolder.get(folder) ?? []), file]);
  }
  if (!byFolder.size) return;
  for (const { card, input, pictures } of cards()) { // the empty ones that the page began with
    if (!pictures.length && input.value === card.dataset.given) dropCard(card);
  }
  for (const [folder, files] of byFolder) {
    const existing = cards().find(({ name }) => name === folder);
    addPictures(existing?.card ?? addClass(folder || undefined), files);
  }
}

async function addPictures(card, files) {
  const list = card.querySelector(".tiles");
  await forEachFile(files, card.querySelector(".problem"), async (file) => {
    await addTile(list, file, (next) => {
      (next ?? card.querySelector(".choose")).focus();
      label(card);
      changed();
    });
    label(card);
    changed();
  });
}

// The colour that the fewest classes have.
function nextColour() {
  const uses = Array(COLOURS).fill(0);
  for (const { colour } of cards()) uses[colour] += 1;
  return uses.indexOf(Math.min(...uses));
}

function removeClass(card) {
  const next = card.nextElementSibling ?? card.previousElementSibling;
  dropCard(card);
  (next?.querySelector(".name") ?? document.getElementById("add")).focus();
}

function dropCard(card) {
  for (const tile of card.querySelectorAll("[data-picture]")) {
    forget(tile.dataset.picture).catch(() => {});
  }
  card.remove();
  changed();
}

function label(card) {
  const name = nameOf(card).value.trim() || "unnamed class";
  const count = card.querySelectorAll("[data-picture]").length;
  card.setAttribute("aria-label", name);
  card.querySelector(".remove").setAttribute("aria-label", `Remove the class ${name}`);
  card.querySelector("input[type=file]").setAttribute("aria-label", `Pictures of ${name}`);
  card.querySelector(".choose").setAttribute("aria-label", `Choose pictures of ${name}`);
  card.querySelector(".count").textContent = count ? `${count} picture${count > 1 ? "s" : ""}` : "";
}

function nameOf(card) {
  return card.querySelector(".name");
}
