// The page, from top to bottom: show classes, adapt, ask.

import { classifier, open, send } from "/api.js";
import { addQueries, answerAll, markOutdated } from "/answers.js";
import { cameraFor } from "/camera.js";
import { addClass, addFolders, cards, onChange } from "/classes.js";
import { accept, ignoreStrayDrops, withoutLitter } from "/files.js";
import { limitBytes, uploadsSettled, showMessage } from "/uploads.js";

const [adaptButton, saveButton, state, trouble, query] = ["adapt", "save", "state", "trouble", "query"]
  .map((id) => document.getElementById(id));
let version = 0; // of the classes, one more with each change
let adapted = -1; // the version that the classifier was adapted to
const isAdapted = () => adapted === version;

addClass();
addClass();
onChange(() => {
  version += 1;
  showMessage(trouble, "");
  if (adapted < 0 || adaptButton.ariaBusy === "true") return;
  state.textContent = "The classes have changed: adapt again.";
  saveButton.hidden = true;
  markOutdated();
});

document.getElementById("add").addEventListener("click", () => {
  addClass().querySelector(".name").focus();
});
accept(document.getElementById("more"), {
  choose: document.getElementById("folders"),
  input: document.getElementById("folder-input"),
  take: addFolders,
});
accept(query, {
  choose: query.querySelector(".choose"),
  input: query.querySelector("input"),
  take: (entries) => askAbout(withoutLitter(entries).map(({ file }) => file)),
});
cameraFor(query.querySelector(".photograph"), {
  title: () => "A picture to ask about",
  take: (file) => askAbout([file]),
  once: true,
});
ignoreStrayDrops();
adaptButton.addEventListener("click", adapt);
saveButton.addEventListener("click", save);
addEventListener("beforeunload", (event) => {
  if (document.querySelector("[data-picture]")) event.preventDefault(); // they would be lost
});
begin();

async function begin() {
  try {
    const info = await open();
    limitBytes(info.picture_bytes);
    document.getElementById("about").textContent = info.learner;
  } catch (error) {
    showMessage(trouble, error.message);
  }
}

function askAbout(files) {
  return addQueries(files, query.querySelector(".problem"));
}

async function adapt() {
  if (adaptButton.ariaBusy === "true") return;
  adaptButton.ariaBusy = "true";
  showMessage(trouble, "");
  try {
    state.textContent = "Reading the last pictures…";
    await uploadsSettled();
    const classes = cards();
    const wrong = problemOf(classes);
    if (wrong) {
      state.textContent = "";
      showMessage(trouble, wrong.text);
      wrong.focus?.focus();
      return;
    }
    await adaptTo(classes);
  } catch (error) {
    state.textContent = "";
    showMessage(trouble, error.message);
  } finally {
    adaptButton.ariaBusy = null;
  }
}

async function adaptTo(classes) {
  const count = classes.reduce((sum, { pictures }) => sum + pictures.length, 0);
  const what = `${count} pictures of ${classes.length} classes`;
  const of = version;
  state.textContent = `Adapting to ${what}…`;
  const shown = classes.map(({ name, pictures }) => ({ name, pictures }));
  const { classes: names, seconds } = await send("/api/adapt", { classes: shown });
  adapted = of;
  await answerAll(new Map(names.map((name, at) => [name, classes[at].colour])));
  saveButton.hidden = !isAdapted();
  if (!isAdapted()) markOutdated();
  state.textContent = isAdapted()
    ? `Adapted to ${what} in ${duration(seconds)}.`
    : "The classes have changed: adapt again.";
}

function duration(seconds) {
  return seconds < 0.1 ? "less than 0.1 s" : `${seconds.toFixed(1)} s`;
}

// The first problem that prevents adapting, and the element that solves it.
function problemOf(classes) {
  const full = classes.filter(({ pictures }) => pictures.length);
  const empty = classes.find(({ pictures }) => !pictures.length);
  const unnamed = classes.find(({ name }) => !name);
  const twice = classes.find(({ name }, at) => classes.findIndex((one) => one.name === name) < at);
  if (classes.length < 2) {
    return {
      text: "One class only: there is nothing to tell apart. Add a second one.",
      focus: document.getElementById("add"),
    };
  }
  if (unnamed) return { text: "A class has no name.", focus: unnamed.input };
  if (twice) return { text: `Two classes are called “${twice.name}”.`, focus: twice.input };
  if (!full.length) return { text: "There are no pictures yet.", focus: empty.choose };
  if (empty) {
    return {
      text: `“${empty.name}” has no pictures. Add some, or remove the class.`,
      focus: empty.choose,
    };
  }
  return null;
}

async function save() {
  showMessage(trouble, "");
  try {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await classifier());
    link.download = "classifier.safetensors";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  } catch (error) {
    showMessage(trouble, error.message);
  }
}
