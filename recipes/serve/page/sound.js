/* sound.js - a recording from the microphone, as a WAV file of 16 kHz and 16 bits. */

/* Mono samples (float) at `rate` -> a Blob, averaged down to 16 kHz. */
export function wav(samples, rate) {
  const to = Math.min(16000, rate);
  const n = Math.floor(samples.length * to / rate);
  const bytes = new DataView(new ArrayBuffer(44 + 2 * n));
  const word = (at, s) => [...s].forEach((c, i) => bytes.setUint8(at + i, c.charCodeAt(0)));
  word(0, 'RIFF');
  bytes.setUint32(4, 36 + 2 * n, true);
  word(8, 'WAVEfmt ');
  bytes.setUint32(16, 16, true);
  bytes.setUint16(20, 1, true);
  bytes.setUint16(22, 1, true);
  bytes.setUint32(24, to, true);
  bytes.setUint32(28, 2 * to, true);
  bytes.setUint16(32, 2, true);
  bytes.setUint16(34, 16, true);
  word(36, 'data');
  bytes.setUint32(40, 2 * n, true);
  for (let i = 0; i < n; i++) {
    const a = Math.floor(i * rate / to), b = Math.max(a + 1, Math.floor((i + 1) * rate / to));
    let sum = 0;
    for (let k = a; k < b; k++) sum += samples[k] ?? 0;
    bytes.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, sum / (b - a))) * 32767, true);
  }
  return new Blob([bytes], { type: 'audio/wav' });
}

/* Starts the microphone; level(samples) is called as they come. stop() gives the Blob. */
export async function record(level) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } });
  const context = new AudioContext();
  await context.audioWorklet.addModule('worklet.js');
  const node = new AudioWorkletNode(context, 'mbuyu-samples');
  const parts = [];
  node.port.onmessage = (e) => {
    parts.push(e.data);
    level(e.data);
  };
  context.createMediaStreamSource(stream).connect(node);
  return {
    async stop() {
      stream.getTracks().forEach((track) => track.stop());
      const rate = context.sampleRate;
      await context.close();
      const all = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
      let at = 0;
      for (const p of parts) {
        all.set(p, at);
        at += p.length;
      }
      return wav(all, rate);
    },
  };
}
