// The segment as bytes: offsets, entries, and which counter a latency belongs to.
//
// The contract is docs/segment.md; every number here is one of its numbers.

import {readFileSync} from 'node:fs';

export const PAGE = 4096;
export const FLAGS = PAGE;
export const SERIES = 2 * PAGE;
export const SERIES_ENTRY = 192;
export const REQUESTS_MAX = 128;
export const REQUESTS_ENTRY = 192;
export const GAUGES_MAX = 64;
export const GAUGE_ENTRY = 128;
export const COUNTERS = 3841;
export const BLOCK_STRIDE = 15424;
export const SERIES_MAX = 256;
export const OVERFLOW = 3840;
export const NANOS_MAX = 2 ** 36 - 1;

export const STATE = 512;
export const SERIES_LEN = 516;
export const REQUESTS_LEN = 520;
export const GAUGES_LEN = 524;
export const SHARDS_USED = 528;
export const READY = 1;
export const CLOSED = 2;
export const KILL_BIT = 1n << 63n;

export const STAGES = {stage_a: 0, stage_b: 1, stage_c: 2, e2e: 3};
export const ARMS = {baseline: 0, canary: 1};
export const FLAG_PATHS = [
  'stageCOptimizations',
  'isotonicCalibration',
  'confidenceGating',
  'optimizedHNSW',
  'stageA.native_scanner',
  'stageB.enabled',
  'stageB.lruCaching',
  'stageB.precompilePatterns',
  'stageC.enabled',
  'stageC.confidenceCutoff',
  'stageC.isotonicCalibration',
  'canary.killSwitchEnabled',
  'canary.progressiveRollout',
  'experimentalReranker',
  'advancedCalibration',
  'hnswAutoTuning',
  'performanceMonitoring',
  'qualityGating',
  'abTesting.enabled',
];
const DEFAULT_FLAGS = [
  'canary.killSwitchEnabled',
  'canary.progressiveRollout',
  'performanceMonitoring',
  'qualityGating',
];

export function flagBit(path) {
  const bit = FLAG_PATHS.indexOf(path);
  if (bit < 0) throw new RangeError(`flag ${JSON.stringify(path)} is unknown: use ${FLAG_PATHS.join(', ')}`);
  return 1n << BigInt(bit);
}

export const defaultFlags = () => DEFAULT_FLAGS.reduce((bits, path) => bits | flagBit(path), 0n);

const pageUp = (count) => Math.ceil(count / PAGE) * PAGE;

// A writer of this kind is one thread: one shard.
export function geometry(seriesMax) {
  if (!Number.isInteger(seriesMax) || seriesMax < 1 || seriesMax > SERIES_MAX) {
    throw new RangeError(`${seriesMax} series: use 1 to ${SERIES_MAX}`);
  }
  const requests = SERIES + pageUp(seriesMax * SERIES_ENTRY);
  const gauges = requests + pageUp(REQUESTS_MAX * REQUESTS_ENTRY);
  const blocks = gauges + pageUp(GAUGES_MAX * GAUGE_ENTRY);
  return {seriesMax, requests, gauges, blocks, total: pageUp(blocks + seriesMax * BLOCK_STRIDE)};
}

// The counter of a latency in nanoseconds; one above 68.7 s is counted apart.
export function counterOf(nanos) {
  if (nanos < 2147483648) {
    // Below 2^31 all of it is integer arithmetic; what is no number is 0 there.
    const whole = nanos > 0 ? nanos | 0 : 0;
    const octave = 24 - Math.clz32(whole | 255);
    return (octave << 7) + (whole >> octave);
  }
  if (!(nanos <= NANOS_MAX)) return nanos > NANOS_MAX ? OVERFLOW : 0;
  // Exact: doubles hold every integer below 2^53, and the latency is below 2^36.
  const octave = nanos < 4294967296 ? 24 : 56 - Math.clz32(nanos / 4294967296);
  return octave * 128 + Math.floor(nanos / 2 ** octave);
}

const MASK = (1n << 64n) - 1n;

export function fnv1a(bytes) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of bytes) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & MASK;
  return hash;
}

// Whether `user` is in a canary of this share, parts per million.
export function inCanary(salt, ppm, user) {
  const prefix = Buffer.alloc(4);
  prefix.writeUInt32LE(salt);
  let hash = fnv1a(Buffer.concat([prefix, Buffer.from(user)]));
  hash = ((hash ^ (hash >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  hash = ((hash ^ (hash >> 27n)) * 0x94d049bb133111ebn) & MASK;
  hash ^= hash >> 31n;
  return (hash * 1000000n) >> 64n < BigInt(Math.min(ppm, 1000000));
}

export function sliceParts(name) {
  const parts = String(name).toLowerCase().split('/');
  if (parts.length !== 3) {
    throw new RangeError(
      `slice ${JSON.stringify(name)} needs three parts, repo_type/language/size, such as backend/rust/large`,
    );
  }
  for (const part of parts) {
    if (!/^[a-z0-9._+#-]{1,48}$/.test(part)) {
      throw new RangeError(`slice part ${JSON.stringify(part)}: use 1 to 48 of a-z 0-9 . _ + # -`);
    }
  }
  return parts;
}

export function code(of, kind, name) {
  if (!Object.hasOwn(of, name)) {
    throw new RangeError(`${kind} ${JSON.stringify(name)} is unknown: use ${Object.keys(of).join(', ')}`);
  }
  return of[name];
}

function putNames(entry, at, parts) {
  parts.forEach((part, number) => {
    entry[at + number] = part.length;
    entry.write(part, at + 8 + number * 48, 'latin1');
  });
}

function sealed(entry, head) {
  entry.writeBigUInt64LE(fnv1a(entry.subarray(head, entry.length - 8)), entry.length - 8);
  return entry;
}

export function seriesEntry(parts, stage, arm) {
  const entry = Buffer.alloc(SERIES_ENTRY);
  putNames(entry, 0, parts);
  entry[3] = code(STAGES, 'stage', stage);
  entry[4] = code(ARMS, 'arm', arm);
  return sealed(entry, 0);
}

export function requestsEntry(parts, arm) {
  const entry = Buffer.alloc(REQUESTS_ENTRY);
  putNames(entry, 16, parts);
  entry[20] = code(ARMS, 'arm', arm);
  return sealed(entry, 16);
}

export function gaugeEntry(name) {
  if (!/^[a-z][a-z0-9_]{0,63}$/.test(name)) {
    throw new RangeError(
      `${JSON.stringify(name)} is not a gauge name: use 1 to 64 of a-z 0-9 _, starting with a letter`,
    );
  }
  const entry = Buffer.alloc(GAUGE_ENTRY);
  entry.writeDoubleLE(NaN, 0);
  entry[8] = name.length;
  entry.write(name, 9, 'latin1');
  return sealed(entry, 8);
}

export function header(geometry, {arm, incarnation, service, version, instance}) {
  for (const [what, value] of Object.entries({service, version})) {
    if (!/^[!-~]{1,64}$/.test(value)) {
      throw new RangeError(`${what} ${JSON.stringify(value)}: use 1 to 64 visible ASCII characters`);
    }
  }
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(instance)) {
    throw new RangeError(
      `instance ${JSON.stringify(instance)}: use 1 to 64 of a-z A-Z 0-9 . _ -, a letter or digit first`,
    );
  }
  const page = Buffer.alloc(PAGE);
  page.write('LENSSEG1', 0, 'latin1');
  page.writeUInt16LE(1, 8);
  page.writeUInt32LE(PAGE, 12);
  page.writeBigUInt64LE(BigInt(geometry.total), 16);
  const small = [
    0x01020304, 1, geometry.seriesMax, REQUESTS_MAX, GAUGES_MAX, BLOCK_STRIDE, COUNTERS,
    code(ARMS, 'arm', arm),
  ];
  small.forEach((value, number) => page.writeUInt32LE(value, 24 + 4 * number));
  const offsets = [FLAGS, SERIES, geometry.requests, geometry.gauges, geometry.blocks];
  offsets.forEach((value, number) => page.writeBigUInt64LE(BigInt(value), 56 + 8 * number));
  incarnation.copy(page, 96);
  incarnation.copy(page, PAGE - 16);
  bootId().copy(page, 112);
  page.writeUInt32LE(process.pid, 128);
  page.writeBigUInt64LE(startTicks(), 136);
  page.writeBigUInt64LE(BigInt(Date.now()) * 1000000n, 144);
  [[160, service], [232, version], [304, instance]].forEach(([at, text]) => {
    page[at] = text.length;
    page.write(text, at + 1, 'latin1');
  });
  return page;
}

function bootId() {
  try {
    const text = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim().replaceAll('-', '');
    return Buffer.from(text, 'hex').reverse();
  } catch {
    return Buffer.alloc(16);
  }
}

function startTicks() {
  try {
    const stat = readFileSync('/proc/self/stat', 'utf8');
    return BigInt(stat.slice(stat.lastIndexOf(') ') + 2).split(' ')[19]);
  } catch {
    return 0n;
  }
}
