/* worklet.js - hands the microphone's samples, one channel, to the page. */
registerProcessor('mbuyu-samples', class extends AudioWorkletProcessor {
  process(inputs) {
    if (inputs[0].length) this.port.postMessage(inputs[0][0].slice());
    return true;
  }
});
