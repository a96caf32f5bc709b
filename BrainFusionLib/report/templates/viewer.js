// CT, MRI and fused in three linked planes. Volumes are 8-bit, slices from feet to head, rows from front to
// back, columns from the patient's right to left; a viewer sees the patient's right on the left.
"use strict";
(async () => {
  const box = document.getElementById("viewer");
  const shown = JSON.parse(document.getElementById("viewer-data").textContent);
  const [, height, width] = shown.size;
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const names = ["mri", "ct", "fused"];
  const volumes = Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, await unpack(shown[name].grey)])));
  const edge = getComputedStyle(document.documentElement).getPropertyValue("--edge");
  const control = (name) => box.querySelector(`[name=${name}]`);
  const at = shown.centre.slice();  // slice, row, column

  // Of each plane: the axes of its columns and rows, and whether rows go from the highest index down.
  const planes = {
    axial: {columns: 2, rows: 1, normal: 0, down: false},
    coronal: {columns: 2, rows: 0, normal: 1, down: true},
    sagittal: {columns: 1, rows: 0, normal: 2, down: true},
  };
  const stride = [height * width, width, 1];

  function draw(name) {
    const plane = planes[name], canvas = document.getElementById("view-" + name);
    const columns = shown.size[plane.columns], rows = shown.size[plane.rows];
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
      context.fillStyle = edge;
      context.fillRect(at[plane.columns], 0, 1, rows);
      context.fillRect(0, row, columns, 1);
    }
    if (control("local").checked) {
      context.strokeStyle = context.fillStyle = edge;
      context.font = "7px sans-serif";
      for (const {place, mm} of shown.local) {
        if (Math.abs(place[plane.normal] - at[plane.normal]) * shown.step_mm > shown.local_spacing_mm / 2) continue;
        const x = place[plane.columns], y = plane.down ? rows - 1 - place[plane.rows] : place[plane.rows];
        context.beginPath();
        context.arc(x, y, Math.max(0.5, mm / shown.step_mm), 0, 7);
        context.stroke();
        if (mm >= 2) context.fillText(mm.toFixed(1), x + 3, y - 2);
      }
    }
  }

  // As Slicer shows it: L 4.0 P 0.0 S 6.0 mm.
  function position() {
    const spl = at.map((place, axis) => shown.spl[axis][place]);
    const coordinates = shown.lps_from_spl.slice(0, 3).map((row, axis) => {
      const mm = Math.round(10 * (row[0] * spl[0] + row[1] * spl[1] + row[2] * spl[2] + row[3])) / 10;
      return `${(mm < 0 ? "RAI" : "LPS")[axis]} ${Math.abs(mm).toFixed(1)}`;
    });
    return coordinates.join(" ") + " mm";
  }

  function drawAll() {
    Object.keys(planes).forEach(draw);
    const voxel = at[0] * stride[0] + at[1] * stride[1] + at[2];
    const readings = names.map((name) => `${shown[name].name} ${shown[name].readings[volumes[name][voxel]]}`);
    box.querySelector("output").textContent = `${position()}: ${readings.join(", ")}`;
  }

  function move(axis, place) {
    at[axis] = Math.min(shown.size[axis] - 1, Math.max(0, Math.round(place)));
  }

  for (const [name, plane] of Object.entries(planes)) {
    const canvas = document.getElementById("view-" + name);
    canvas.width = shown.size[plane.columns];
    canvas.height = shown.size[plane.rows];
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
  worst.disabled = !shown.worst;
  worst.addEventListener("click", () => { shown.worst.forEach((place, axis) => move(axis, place)); drawAll(); });
  drawAll();
  box.dataset.ready = "yes";
})();
