// Files that are chosen, dropped or pasted; each is {file, folder}, with the folder's own name.

const LITTER = /^(\.|thumbs\.db$|desktop\.ini$)/i; // what file managers leave behind

// `take` gets a list of {file, folder}; the button `choose` opens the hidden `input`.
export function accept(zone, { choose, input, take }) {
  choose.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take([...input.files].map((file) => ({ file, folder: parent(file.webkitRelativePath) })));
    input.value = "";
  });
  zone.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("over");
  });
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(await droppedFiles(event.dataTransfer));
  });
  zone.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    take(files.map((file) => ({ file, folder: "" })));
  });
}

// A file that is dropped beside a zone must not replace the page.
export function ignoreStrayDrops() {
  for (const name of ["dragover", "drop"]) {
    addEventListener(name, (event) => {
      if (event.defaultPrevented) return;
      event.preventDefault();
      event.dataTransfer.dropEffect = "none";
    });
  }
}

async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, folder: "" }));
  const lists = await Promise.all(entries.map(walk));
  return lists.flat();
}

async function walk(entry) {
  if (LITTER.test(entry.name)) return [];
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, folder: parent(entry.fullPath) }];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) { // a folder is listed in parts; the last one is empty
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    inside.push(...part);
  }
  inside.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
  return (await Promise.all(inside.map(walk))).flat();
}

function parent(path) {
  return path.split("/").at(-2) ?? "";
}

export function withoutLitter(entries) {
  return entries.filter(({ file }) => !LITTER.test(file.name));
}
