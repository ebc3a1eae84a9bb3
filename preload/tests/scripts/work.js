// Objects, JSON, buffers, patterns, compression and worker threads, which hand buffers over.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const fs = require('fs');
const crypto = require('crypto');
const zlib = require('zlib');

const digest = (data) => crypto.createHash('sha256').update(data).digest('hex');

function buffers(seed) {
  const kept = [];
  for (let i = 0; i < 20000; i++) {
    const size = 1 + ((i * 7919 + seed) % (i % 50 === 0 ? 200000 : 2000));
    const buffer = Buffer.alloc(size, i % 251);
    if (i % 7 === 0) kept.push(buffer);
    if (kept.length > 300) kept.splice(0, 150);
  }
  return Buffer.concat(kept);
}

function tree(seed) {
  const all = {};
  for (let i = 0; i < 20000; i++) {
    all['k' + i] = { id: i * seed, list: Array.from({ length: i % 20 }, (_, j) => j * i), name: 'näme ' + i };
  }
  return JSON.stringify(JSON.parse(JSON.stringify(all)));
}

if (!isMainThread) {
  const bytes = new Uint8Array(buffers(workerData));
  const hash = digest(bytes) + ' ' + digest(tree(workerData));
  parentPort.postMessage({ hash, bytes }, [bytes.buffer]);
} else {
  process.stderr.write(fs.readFileSync('/proc/self/maps', 'utf8').includes('[heap]') ? 'break' : 'none');
  const text = tree(1);
  console.log(text.length, digest(text));
  console.log(digest(text.replace(/(\d)(\d+)/g, (_, a, b) => b + a)));
  const packed = zlib.deflateSync(text, { level: 6 });
  console.log(zlib.inflateSync(packed).toString() === text ? 'same' : 'differs');
  console.log(digest(buffers(0)));
  const workers = [1, 2, 3].map((seed) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: seed });
    worker.on('message', (said) => resolve(said.hash + ' ' + digest(said.bytes)));
    worker.on('error', reject);
  }));
  Promise.all(workers).then((said) => console.log(said.join('\n')));
}
