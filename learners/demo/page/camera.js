// Pictures from a camera, where there is one and the person allows it.

import { showMessage } from "/uploads.js";

const QUALITY = 0.92; // of JPEG
const dialog = document.getElementById("camera");
const video = dialog.querySelector("video");
const problem = dialog.querySelector(".problem");
const shoot = dialog.querySelector(".shoot");
const taken = dialog.querySelector(".taken");
let target = null;
let count = 0;

// Let a button open the camera; where there is none the button stays hidden. `once`: close after one picture.
export function cameraFor(button, { title, take, once = false }) {
  button.hidden = !navigator.mediaDevices?.getUserMedia;
  button.addEventListener("click", () => {
    target = { take, once };
    dialog.querySelector("h2").textContent = title();
    start();
  });
}

async function start() {
  showMessage(problem, "");
  taken.textContent = "";
  shoot.disabled = true;
  dialog.showModal();
  try {
    const facing = { facingMode: "environment", width: { ideal: 1280 } };
    const stream = await navigator.mediaDevices.getUserMedia({ video: facing });
    if (!dialog.open) return stop(stream);
    video.srcObject = stream;
    await video.play();
    shoot.disabled = false;
    shoot.focus();
  } catch (error) {
    const reasons = {
      NotAllowedError: "The browser does not let this page use the camera; allow it beside the address.",
      NotFoundError: "There is no camera on this computer.",
      NotReadableError: "The camera is in use by another program.",
    };
    if (dialog.open) showMessage(problem, reasons[error.name] ?? `The camera does not start: ${error.message}.`);
  }
}

shoot.addEventListener("click", async () => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  count += 1;
  taken.textContent = `Picture ${count} taken`;
  target.take(new File([blob], `camera ${count}.jpg`, { type: "image/jpeg" }));
  if (target.once) dialog.close();
});

dialog.querySelector(".close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  stop(video.srcObject);
  video.srcObject = null;
});

function stop(stream) {
  stream?.getTracks().forEach((track) => track.stop());
}
