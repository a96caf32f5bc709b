// The keys of the review of a cohort. All words on the page are the server's; this only sends decisions.
"use strict";
(() => {
  const list = document.getElementById("list"), shown = document.getElementById("case");
  const go = (address) => { if (address) location.assign(address); };

  if (list) {
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "n") go(list.dataset.next);
    });
    return;
  }
  if (!shown) return;

  const name = document.getElementById("name"), comment = document.getElementById("comment");
  const said = document.getElementById("said"), approve = shown.querySelector("[data-action=approve]");
  function tell(words) {
    said.value = words;
    if (words) said.scrollIntoView({block: "nearest"});  // whoever looks at the pictures is far below it
  }
  function showAgain(words) {
    sessionStorage.setItem("said", words);
    history.scrollRestoration = "manual";
    location.reload();
  }
  name.value = sessionStorage.getItem("name") || "";
  name.addEventListener("input", () => sessionStorage.setItem("name", name.value));
  tell(sessionStorage.getItem("said") || "");
  sessionStorage.removeItem("said");

  let isSending = false;
  async function decide(action) {
    if (isSending) return;
    if (!name.value.trim()) {
      tell("Enter your name first.");
      name.focus();
      return;
    }
    isSending = true;
    try {
      const answer = await fetch(shown.dataset.address, {
        method: "POST",
        headers: {"Content-Type": "application/json", "X-BrainFusion-Secret": shown.dataset.secret},
        body: JSON.stringify({action, name: name.value, comment: comment.value, mark: shown.dataset.mark}),
      });
      const words = await answer.text();
      if (answer.ok || answer.status === 409) showAgain(words);
      else tell(words);
    } catch (error) {
      tell("The server does not answer: it was stopped. Nothing was kept.");
    } finally {
      isSending = false;
    }
  }

  shown.querySelectorAll("button[data-action]").forEach((button) =>
    button.addEventListener("click", () => decide(button.dataset.action)));
  document.getElementById("decide").addEventListener("submit", (event) => event.preventDefault());

  document.addEventListener("keydown", (event) => {
    const isWriting = event.target === name || event.target === comment;
    if (event.key === "Escape" && isWriting) event.target.blur();
    if (event.key === "Enter" && event.ctrlKey && event.target === comment) decide("comment");
    if (isWriting || event.ctrlKey || event.altKey || event.metaKey) return;
    const keys = {
      a: () => { if (approve.disabled) tell(approve.title); else decide("approve"); },
      r: () => decide("reject"),
      c: () => comment.focus(),
      n: () => go(shown.dataset.next),
      p: () => go(shown.dataset.previous),
      v: () => document.getElementById("view-axial")?.focus(),
      l: () => go("/"),
    };
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
