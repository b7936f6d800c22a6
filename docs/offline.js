// Search without a server: a browser that shows a page from the disk starts no worker and fetches no file. The index then comes as a
// script (docs/offline_search.py writes it), and the worker runs in a hidden frame.
if (location.protocol === "file:") {
  const here = document.currentScript.src
  document.write(`<script src="${new URL("search/search_index.js", here)}"></scr` + "ipt>")

  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      this.waiting = []
      inside.document.write("<!doctype html><body></body>")
      inside.document.close()
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = inside.document.createElement("script")
      script.src = url
      script.onload = () => {
        this.ready = true
        this.waiting.forEach(data => this.postMessage(data))
      }
      inside.document.body.append(script)
    }
    postMessage(data) {
      if (!this.ready) this.waiting.push(data)
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }
  }
}
