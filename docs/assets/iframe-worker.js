// Pages that are opened from a folder may start no worker, which the search needs. Here it runs in
// a hidden frame of the page instead. Behind a server nothing changes.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.documentElement.append(this.frame)
      const inside = this.frame.contentWindow
      inside.postMessage = (message) => {
        const data = structuredClone(message) // a worker shares no object either
        setTimeout(() => this.onmessage?.({ data }))
      }
      this.ready = new Promise((resolve, reject) => {
        const script = inside.document.createElement("script")
        Object.assign(script, { src: url, onload: resolve, onerror: reject })
        inside.document.documentElement.append(script)
      })
      this.ready.catch((event) => this.onerror?.(event))
    }

    postMessage(message) {
      const data = structuredClone(message)
      this.ready.then(() => this.frame.contentWindow.onmessage?.({ data }))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
