"use strict";
const bar = document.querySelector("progress");
if (bar && bar.dataset.events) {
  const step = document.querySelector("#step");
  const events = new EventSource(bar.dataset.events);
  events.onmessage = (event) => {
    const [percent, name] = event.data.split(" ");
    bar.value = Number(percent);
    step.textContent = name;
  };
  events.addEventListener("end", () => { events.close(); location.reload(); });
}
