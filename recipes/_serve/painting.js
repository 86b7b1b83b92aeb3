// Painting on `canvas.paint`: what is opaque there is made anew. Listeners are the document's, so
// that a canvas may come and go.
(() => {
  let last = null;
  const paper = (event) => (event.target.matches?.("canvas.paint") ? event.target : null);

  function stroke(canvas, event) {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    const at = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const size = canvas.closest(".easel").querySelector(".brush-size").valueAsNumber;
    const pen = canvas.getContext("2d");
    pen.strokeStyle = "#ff7a1f";
    pen.lineCap = pen.lineJoin = "round";
    pen.lineWidth = (Math.min(canvas.width, canvas.height) * size) / 24;
    pen.beginPath();
    pen.moveTo(...(last ?? at));
    pen.lineTo(at[0] + 0.01, at[1]); // a point is a line, too
    pen.stroke();
    last = at;
    canvas.dataset.painted = "yes";
  }

  document.addEventListener("pointerdown", (event) => {
    const canvas = paper(event);
    if (!canvas) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    last = null;
    stroke(canvas, event);
  });
  document.addEventListener("pointermove", (event) => {
    const canvas = paper(event);
    if (canvas && event.buttons) stroke(canvas, event);
  });
  document.addEventListener("click", (event) => {
    if (!event.target.matches?.("button.wipe")) return;
    const canvas = event.target.closest(".easel").querySelector("canvas");
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    delete canvas.dataset.painted;
  });
  window.contarPainted = () => {
    const canvas = document.querySelector("canvas.paint");
    return canvas?.dataset.painted ? canvas.toDataURL("image/png") : "";
  };
})();
