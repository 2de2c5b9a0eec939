// Videos play while they are on screen: browsers allow only some dozens of players on a page, so one that has left gives its
// player back. Whoever prefers reduced motion gets the first frames, and the button.
const videos = [...document.querySelectorAll("video")];
const button = document.querySelector("#pause");
const onScreen = new Set();
let playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;

function show() {
  button.textContent = playing ? "Pause videos" : "Play videos";
  for (const video of onScreen) playing ? video.play().catch(() => {}) : video.pause();
}

const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) onScreen.add(target);
    else if (onScreen.delete(target)) target.load();
  }
  show();
});

for (const video of videos) {
  video.controls = false; // They are there for readers without scripts.
  observer.observe(video);
}
button.hidden = videos.length === 0;
button.addEventListener("click", () => { playing = !playing; show(); });
