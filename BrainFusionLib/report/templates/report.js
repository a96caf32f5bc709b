"use strict";
const compare = document.querySelector(".compare");
compare.querySelector("input").addEventListener("input", (event) => {
  compare.style.setProperty("--share", event.target.value + "%");
});
document.getElementById("show-edges").addEventListener("change", (event) => {
  document.body.classList.toggle("no-edges", !event.target.checked);
});
