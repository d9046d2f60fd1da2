// Records the latencies of a search node into a lens segment.
//
//     import {Recorder} from 'lens-recorder';
//
//     const node = Recorder.create({service: 'lens', version: '1.4.2', instance: 'node-7'});
//     const lexical = node.series('backend/rust/large', 'stage_a');
//
//     const search = lexical.timed(async (query) => { … });
//     const timer = lexical.start(); … timer.stop();
//     lexical.record(1_250_000);            // nanoseconds
//     node.requests('backend/rust/large').ok();
//     node.gauge('span_coverage_percent').set(98.7);
//
// Creating and registering throw what is wrong. Recording throws nothing and makes no system call: it
// adds to an array of this thread, which is written to the segment every `flushMillis`. What was not
// written when a process is killed is lost: at most that long. A process that ends in order, and one
// that ends by an uncaught error, loses nothing. Each worker thread makes a recorder of its own.

import {spawnSync} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import * as layout from './layout.js';

const NANOS_PER_MILLI = 1e6;

export class Recorder {
  #fd;
  #geometry;
  #arm;
  #timer;
  #series = new Map();
  #requests = new Map();
  #gauges = new Map();
  #flags = Buffer.alloc(24);
  #atExit = () => this.close();

  constructor(fd, file, geometry, arm, flushMillis) {
    this.#fd = fd;
    this.#geometry = geometry;
    this.#arm = arm;
    /** The segment's file. */
    this.path = file;
    /** Flushes that failed; the next one writes what they did not. */
    this.flushFailures = 0;
    this.#readFlags();
    this.#timer = setInterval(() => this.flush(), flushMillis);
    this.#timer.unref();
    process.on('exit', this.#atExit);
  }

  static create({
    directory = process.env.LENS_SEGMENT_DIR || '/dev/shm/lens',
    service,
    version,
    instance,
    arm = 'baseline',
    seriesMax = layout.SERIES_MAX,
    flushMillis = 100,
  }) {
    const geometry = layout.geometry(seriesMax);
    const incarnation = randomBytes(16);
    const page = layout.header(geometry, {arm, incarnation, service, version, instance});
    const name = `${instance}-${process.pid}-${incarnation.readUInt32LE(12).toString(16).padStart(8, '0')}.lens`;
    fs.mkdirSync(directory, {recursive: true, mode: 0o750});
    const hidden = path.join(directory, `.${name}.tmp`);
    const {O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW} = fs.constants;
    const fd = fs.openSync(hidden, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o640);
    try {
      lock(fd);
      fs.fchmodSync(fd, 0o640);
      fs.ftruncateSync(fd, geometry.total);
      // Written, so that the filesystem has room for it for good.
      fs.writeSync(fd, Buffer.alloc(geometry.blocks), 0, geometry.blocks, 0);
      page.writeUInt32LE(layout.READY, layout.STATE);
      page.writeBigUInt64LE(1n, layout.SHARDS_USED);
      fs.writeSync(fd, page, 0, page.length, 0);
      const flags = Buffer.alloc(8);
      flags.writeBigUInt64LE(layout.defaultFlags());
      fs.writeSync(fd, flags, 0, 8, layout.FLAGS + 8);
      const file = path.join(directory, name);
      fs.renameSync(hidden, file);
      return new Recorder(fd, file, geometry, arm, flushMillis);
    } catch (error) {
      fs.closeSync(fd);
      fs.rmSync(hidden, {force: true});
      throw error;
    }
  }

  /** The histogram of a slice (`repo_type/language/size`), stage and arm. */
  series(slice, stage, arm = this.#arm) {
    const parts = layout.sliceParts(slice);
    const key = `${parts.join('/')} ${stage} ${arm}`;
    return this.#registered(this.#series, key, 'series', this.#geometry.seriesMax, (place) => {
      const entry = layout.seriesEntry(parts, stage, arm);
      const block = this.#geometry.blocks + place * layout.BLOCK_STRIDE;
      this.#write(Buffer.alloc(layout.BLOCK_STRIDE), block);
      this.#publish(entry, layout.SERIES + place * layout.SERIES_ENTRY, layout.SERIES_LEN, place);
      return new Series(block);
    });
  }

  /** The counters of answered and failed requests of a slice and arm. */
  requests(slice = 'all/all/all', arm = this.#arm) {
    const parts = layout.sliceParts(slice);
    const key = `${parts.join('/')} ${arm}`;
    return this.#registered(this.#requests, key, 'request counters', layout.REQUESTS_MAX, (place) => {
      const at = this.#geometry.requests + place * layout.REQUESTS_ENTRY;
      this.#publish(layout.requestsEntry(parts, arm), at, layout.REQUESTS_LEN, place);
      return new Requests(at);
    });
  }

  /** A quality signal, such as `span_coverage_percent`. */
  gauge(name) {
    return this.#registered(this.#gauges, name, 'gauges', layout.GAUGES_MAX, (place) => {
      const at = this.#geometry.gauges + place * layout.GAUGE_ENTRY;
      this.#publish(layout.gaugeEntry(name), at, layout.GAUGES_LEN, place);
      return new Gauge(at);
    });
  }

  #registered(table, key, what, limit, make) {
    let found = table.get(key);
    if (!found) {
      if (this.#fd === undefined) throw new Error('this recorder is closed');
      if (table.size >= limit) throw new RangeError(`the segment already has ${limit} ${what}, its limit`);
      found = make(table.size);
      table.set(key, found);
    }
    return found;
  }

  // The entry, then the length that shows it: never the other way round.
  #publish(entry, at, lengthAt, place) {
    this.#write(entry, at);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(place + 1);
    this.#write(length, lengthAt);
  }

  #write(bytes, at) {
    let done = 0;
    while (done < bytes.length) done += fs.writeSync(this.#fd, bytes, done, bytes.length - done, at + done);
  }

  /** Writes what was recorded to the segment, and looks at the flags. Throws nothing. */
  flush() {
    if (this.#fd === undefined) return;
    try {
      const write = (bytes, at) => this.#write(bytes, at);
      for (const table of [this.#series, this.#requests, this.#gauges]) {
        for (const held of table.values()) held._flush(write);
      }
      this.#readFlags();
    } catch {
      this.flushFailures += 1;
    }
  }

  #readFlags() {
    fs.readSync(this.#fd, this.#flags, 0, 24, layout.FLAGS);
  }

  /** Whether a flag is on, as of the last flush; never while the kill switch is engaged. */
  enabled(flag) {
    const bit = layout.flagBit(flag);
    return (this.#flags.readBigUInt64LE(8) & (bit | layout.KILL_BIT)) === bit;
  }

  /** Whether the kill switch is engaged, as of the last flush. */
  get killed() {
    return (this.#flags.readBigUInt64LE(8) & layout.KILL_BIT) !== 0n;
  }

  /** The generation of the control plane's last word; 0n before the first. */
  get generation() {
    return this.#flags.readBigUInt64LE(0);
  }

  /** `canary` or `baseline`: the same user the same arm, on every node and in every language. */
  arm(user) {
    const [ppm, salt] = [this.#flags.readUInt32LE(16), this.#flags.readUInt32LE(20)];
    return !this.killed && layout.inCanary(salt, ppm, user) ? 'canary' : 'baseline';
  }

  /** Writes what is left and says that nobody records here any more. */
  close() {
    if (this.#fd === undefined) return;
    this.flush();
    clearInterval(this.#timer);
    process.off('exit', this.#atExit);
    const state = Buffer.alloc(4);
    state.writeUInt32LE(layout.CLOSED);
    try {
      this.#write(state, layout.STATE);
    } catch {
      this.flushFailures += 1;
    }
    fs.closeSync(this.#fd);
    this.#fd = undefined;
  }
}

// A lock belongs to the open file, not to whoever asked for it: a child that inherits the file takes
// the lock and ends, and it stays with this process until it ends or closes the file.
function lock(fd) {
  const done = spawnSync('flock', ['--exclusive', '--nonblock', '3'], {
    stdio: ['ignore', 'ignore', 'pipe', fd],
    encoding: 'utf8',
  });
  if (done.error) throw new Error(`flock (util-linux) is needed to lock the segment: ${done.error.message}`);
  if (done.status !== 0) throw new Error(`the segment cannot be locked: ${done.stderr.trim()}`);
}

class Series {
  #block;
  #counts = new Uint32Array(layout.COUNTERS);
  #low = layout.COUNTERS;
  #high = -1;

  constructor(block) {
    this.#block = block;
  }

  /** Counts one latency, nanoseconds (number or BigInt). Throws nothing. */
  record(nanos) {
    const at = layout.counterOf(typeof nanos === 'bigint' ? Number(nanos) : nanos);
    this.#counts[at] += 1;
    if (at < this.#low) this.#low = at;
    if (at > this.#high) this.#high = at;
  }

  /** A running timer that ends in this series. */
  start() {
    return new Timer(this);
  }

  /** A function, every call of which is timed; of an async one, until its promise settles. */
  timed(call) {
    const series = this;
    return function timed(...args) {
      const timer = new Timer(series);
      let result;
      try {
        result = call.apply(this, args);
      } catch (error) {
        timer.stop();
        throw error;
      }
      if (typeof result?.then !== 'function') {
        timer.stop();
        return result;
      }
      return result.then(
        (value) => (timer.stop(), value),
        (error) => {
          timer.stop();
          throw error;
        },
      );
    };
  }

  _flush(write) {
    if (this.#high < this.#low) return;
    const [low, high] = [this.#low, this.#high];
    write(Buffer.from(this.#counts.buffer, low * 4, (high - low + 1) * 4), this.#block + low * 4);
    this.#low = layout.COUNTERS;
    this.#high = -1;
  }
}

/** A running stage; one that is dropped without `stop` records nothing. */
class Timer {
  #series;
  #begin = performance.now();

  constructor(series) {
    this.#series = series;
  }

  /** Ends the running stage and starts one that ends in `series`, with one look at the clock. */
  lap(series) {
    const now = performance.now();
    this.#series.record((now - this.#begin) * NANOS_PER_MILLI);
    this.#series = series;
    this.#begin = now;
  }

  /** Ends the running stage; nanoseconds it took. */
  stop() {
    const took = (performance.now() - this.#begin) * NANOS_PER_MILLI;
    this.#series.record(took);
    return took;
  }
}

class Requests {
  #at;
  #counts = new BigUint64Array(2);
  #changed = false;

  constructor(at) {
    this.#at = at;
  }

  /** Counts one answered request. */
  ok() {
    this.#counts[0] += 1n;
    this.#changed = true;
  }

  /** Counts one failed request: one the service is to blame for. */
  error() {
    this.#counts[1] += 1n;
    this.#changed = true;
  }

  _flush(write) {
    if (this.#changed) write(Buffer.from(this.#counts.buffer), this.#at);
    this.#changed = false;
  }
}

class Gauge {
  #at;
  #value = new Float64Array(1);
  #changed = false;

  constructor(at) {
    this.#at = at;
  }

  /** Sets it; what is no finite number is ignored. */
  set(value) {
    if (!Number.isFinite(value)) return;
    this.#value[0] = value;
    this.#changed = true;
  }

  _flush(write) {
    if (this.#changed) write(Buffer.from(this.#value.buffer), this.#at);
    this.#changed = false;
  }
}
