// Requests to the server. A request that is refused throws an Error with the server's sentence.

const key = new URLSearchParams(location.search).get("key") ?? ""; // of the program's start
let session = "";

export async function open() {
  const info = await (await ask("POST", "/api/session")).json();
  session = info.session;
  return info;
}

export async function send(path, value) {
  return (await ask("POST", path, JSON.stringify(value))).json();
}

export async function sendPicture(file) {
  return (await ask("POST", "/api/pictures", file)).json();
}

export async function forget(picture) {
  await ask("DELETE", `/api/pictures/${picture}`);
}

export async function classifier() {
  return (await ask("GET", "/api/classifier")).blob();
}

async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(path, { method, body, headers: { "X-Key": key, "X-Session": session } });
  } catch {
    throw new Error("The server does not answer. Is python -m learners.demo still running?");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  throw new Error(error[0].toUpperCase() + error.slice(1) + (error.endsWith(".") ? "" : "."));
}
