// Pictures that were classified, the latest first, with a bar for each class.

import { forget, send } from "/api.js";
import { forEachFile, upload } from "/uploads.js";

const SHOWN = 5; // bars; a click shows the others
const list = document.getElementById("answers");
const announcement = document.getElementById("announcement");

// `colours` of classes by name; null while there is no classifier.
let colours = null;

export async function addQueries(files, place) {
  await forEachFile(files, place, async (file) => {
    const card = addCard(file);
    try {
      const { picture, thumbnail } = await upload(file);
      if (!card.isConnected) return await forget(picture); // removed meanwhile
      [card.dataset.picture, card.querySelector("img").src] = [picture, thumbnail];
    } catch (error) {
      card.remove();
      throw new Error(`${file.name}: ${error.message}`);
    }
    if (colours) await answer([card]);
  });
}

function addCard(file) {
  const card = document.getElementById("answer").content.cloneNode(true).firstElementChild;
  card.dataset.name = file.name;
  card.querySelector("img").alt = file.name;
  card.querySelector(".best").textContent = colours ? "…" : "Adapt, and the answer comes.";
  const button = card.querySelector(".remove");
  button.setAttribute("aria-label", `Remove ${file.name}`);
  button.addEventListener("click", () => {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    if (card.dataset.picture) forget(card.dataset.picture).catch(() => {});
    (next?.querySelector(".remove") ?? document.querySelector("#query .choose")).focus();
  });
  list.prepend(card);
  return card;
}

// Classify all pictures again, by the latest classifier.
export async function answerAll(coloursByName) {
  colours = coloursByName;
  list.classList.remove("old");
  await answer([...list.querySelectorAll("[data-picture]")]);
}

export function markOutdated() {
  if (list.children.length) list.classList.add("old");
}

async function answer(cards) {
  if (!cards.length) return;
  const pictures = cards.map((card) => card.dataset.picture);
  const { classes, probabilities } = await send("/api/classify", { pictures });
  cards.forEach((card, at) => show(card, classes, probabilities[at]));
}

function show(card, classes, probabilities) {
  const order = classes.map((_, at) => at).sort((a, b) => probabilities[b] - probabilities[a]);
  const bars = order.map((at) => bar(classes[at], probabilities[at]));
  const [top, rest] = card.querySelectorAll(".bars");
  const best = classes[order[0]];
  card.querySelector(".best").textContent = best;
  top.replaceChildren(...bars.slice(0, SHOWN));
  rest.replaceChildren(...bars.slice(SHOWN));
  rest.parentElement.hidden = bars.length <= SHOWN;
  card.querySelector("summary").textContent = `${bars.length - SHOWN} more`;
  card.setAttribute("aria-label", `${card.dataset.name}: ${best}`);
  announcement.textContent = `${card.dataset.name}: ${best}, ${percent(probabilities[order[0]])}`;
}

function bar(name, probability) {
  const row = document.getElementById("bar").content.cloneNode(true).firstElementChild;
  row.dataset.colour = colours.get(name) ?? 0;
  const label = row.querySelector(".label");
  [label.textContent, label.title] = [name, name]; // a long one is cut
  row.querySelector(".percent").textContent = percent(probability);
  row.querySelector("i").style.width = `${100 * probability}%`;
  return row;
}

function percent(probability) {
  const rounded = Math.round(100 * probability);
  return rounded < 1 && probability > 0 ? "<1 %" : `${rounded} %`;
}
