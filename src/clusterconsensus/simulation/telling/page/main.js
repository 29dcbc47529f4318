// Puts the page together, and says so if that fails: a blank page explains nothing.

function guarded(action) {
  try {
    action();
  } catch (error) {
    $("error").hidden = false;
    $("error").textContent = `This page is broken: ${error}. The recording is in its source, as JSON.`;
    document.body.dataset.error = String(error);
    console.error(error);
  }
}

guarded(() => {
  readColours();
  showHead();
  showFilters();
  arrange();
  look(...aroundViolation());
  showLegend();
  showPanel(finding);
  selection.pinned = finding;
  showList();
  showCalls();
  showRest();
  canvas.setAttribute("aria-label", `Space-time diagram of ${run.members.length} members and ${messages.length} messages. ${data.verdict}. The list of events below says the same in words.`);
  listen();
  // At once: a page that is printed or looked at by a program may never get a frame.
  document.body.dataset.drawn = paint();
  document.body.dataset.messages = messages.length;
});
