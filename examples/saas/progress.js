"use strict";
// Follows the events of an operation. If the server restarts, the page connects again and continues with the present state.
const bar = document.querySelector("progress");
const step = document.querySelector("#step");
const lost = document.querySelector("#lost");
function follow() {
  const events = new EventSource(bar.dataset.events);
  events.onopen = () => { lost.hidden = true; };
  events.onmessage = (event) => {
    const [percent, name] = event.data.split(" ");
    bar.value = Number(percent);
    step.textContent = name;
  };
  events.addEventListener("end", () => { events.close(); location.reload(); });
  events.onerror = () => {
    // The browser's own retry ends for good when the server refuses the connection or answers with an error.
    events.close();
    lost.hidden = false;
    setTimeout(follow, 1000);
  };
}
if (bar && bar.dataset.events) follow();
