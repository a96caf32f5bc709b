// Look through CT, MRI and fused in three linked planes. Volumes are 8-bit, slices from feet to head, rows from front to
// back, columns from the patient's right to left; a viewer sees the patient's right on the left.
"use strict";
(async () => {
  const box = document.getElementById("viewer");
  const told = JSON.parse(document.getElementById("viewer-data").textContent);
  const [depth, height, width] = told.size;
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const names = ["mri", "ct", "fused"];
  const volumes = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await unpack(told[name])])));
  const control = (name) => box.querySelector(`[name=${name}]`);
  const at = told.centre.slice();  // slice, row, column

  // Of each plane: the axes of its columns and rows, and whether rows go from the highest index down.
  const planes = {
    axial: {columns: 2, rows: 1, normal: 0, down: false},
    coronal: {columns: 2, rows: 0, normal: 1, down: true},
    sagittal: {columns: 1, rows: 0, normal: 2, down: true},
  };
  const stride = [height * width, width, 1];

  function draw(name) {
    const plane = planes[name], canvas = document.getElementById("view-" + name);
    const columns = told.size[plane.columns], rows = told.size[plane.rows];
    const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows);
    const fused = control("shown").checked, share = control("opacity").value / 100;
    const middle = Number(control("brightness").value), wide = Number(control("contrast").value);
    const scale = 255 / wide, low = middle - wide / 2;
    let to = 0;
    for (let row = 0; row < rows; row++) {
      let from = at[plane.normal] * stride[plane.normal] + (plane.down ? rows - 1 - row : row) * stride[plane.rows];
      for (let column = 0; column < columns; column++, from += stride[plane.columns]) {
        const value = fused ? volumes.fused[from] : volumes.mri[from] * (1 - share) + volumes.ct[from] * share;
        const grey = (value - low) * scale;
        picture.data[to++] = grey; picture.data[to++] = grey; picture.data[to++] = grey; picture.data[to++] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
    const row = plane.down ? rows - 1 - at[plane.rows] : at[plane.rows];
    if (control("cross").checked) {
      context.fillStyle = told.edge;
      context.fillRect(at[plane.columns], 0, 1, rows);
      context.fillRect(0, row, columns, 1);
    }
    if (control("local").checked) {
      context.strokeStyle = context.fillStyle = told.edge;
      context.font = "7px sans-serif";
      for (const [place, length] of told.local) {
        if (Math.abs(place[plane.normal] - at[plane.normal]) * told.step_mm > told.local_mm / 2) continue;
        const x = place[plane.columns], y = plane.down ? rows - 1 - place[plane.rows] : place[plane.rows];
        context.beginPath();
        context.arc(x, y, Math.max(0.5, length / told.step_mm), 0, 7);
        context.stroke();
        if (length >= 2) context.fillText(length.toFixed(1), x + 3, y - 2);
      }
    }
  }

  function drawAll() {
    Object.keys(planes).forEach(draw);
    const away = at.map((place, axis) => ((place - told.centre[axis]) * told.step_mm).toFixed(0));
    box.querySelector("output").textContent =
      `${away[2]} mm left, ${away[1]} mm back, ${away[0]} mm up of the middle; ` +
      names.map((name) => `${told.words[name]} ${volumes[name][at[0] * stride[0] + at[1] * stride[1] + at[2]]}`).join(", ");
  }

  function move(axis, place) {
    at[axis] = Math.min(told.size[axis] - 1, Math.max(0, Math.round(place)));
  }

  for (const [name, plane] of Object.entries(planes)) {
    const canvas = document.getElementById("view-" + name);
    canvas.width = told.size[plane.columns];
    canvas.height = told.size[plane.rows];
    canvas.parentElement.style.flexGrow = canvas.width;  // one scale for all three
    const point = (event) => {
      const frame = canvas.getBoundingClientRect();
      const row = (event.clientY - frame.top) / frame.height * canvas.height - 0.5;
      move(plane.columns, (event.clientX - frame.left) / frame.width * canvas.width - 0.5);
      move(plane.rows, plane.down ? canvas.height - 1 - row : row);
      drawAll();
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); point(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) point(event); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      move(plane.normal, at[plane.normal] - Math.sign(event.deltaY));
      drawAll();
    }, {passive: false});
    canvas.addEventListener("keydown", (event) => {
      const up = plane.down ? 1 : -1;
      const steps = {
        ArrowLeft: [plane.columns, -1], ArrowRight: [plane.columns, 1], ArrowUp: [plane.rows, up],
        ArrowDown: [plane.rows, -up], PageUp: [plane.normal, 1], PageDown: [plane.normal, -1],
      };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const [axis, step] = steps[event.key];
      move(axis, at[axis] + step);
      drawAll();
    });
  }
  box.addEventListener("input", (event) => {
    if (event.target.name === "opacity") control("shown").checked = false;
    drawAll();
  });
  const worst = box.querySelector("button");
  worst.disabled = !told.worst;
  worst.addEventListener("click", () => { told.worst.forEach((place, axis) => move(axis, place)); drawAll(); });
  drawAll();
  box.dataset.ready = "yes";
})();
