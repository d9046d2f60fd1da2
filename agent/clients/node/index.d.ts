/** Where a latency was spent. */
export type Stage = 'stage_a' | 'stage_b' | 'stage_c' | 'e2e';
/** Which version answered. */
export type Arm = 'baseline' | 'canary';

export interface Options {
  /** Where segments are; $LENS_SEGMENT_DIR, else /dev/shm/lens. It should be a tmpfs. */
  directory?: string;
  service: string;
  version: string;
  instance: string;
  arm?: Arm;
  /** 1 to 256. */
  seriesMax?: number;
  /** What a killed process loses at most, milliseconds. */
  flushMillis?: number;
}

export interface Timer {
  lap(series: Series): void;
  stop(): number;
}

export interface Series {
  record(nanos: number | bigint): void;
  start(): Timer;
  timed<A extends unknown[], R>(call: (...args: A) => R): (...args: A) => R;
}

export interface Requests {
  ok(): void;
  error(): void;
}

export interface Gauge {
  set(value: number): void;
}

export class Recorder {
  private constructor();
  static create(options: Options): Recorder;
  readonly path: string;
  readonly flushFailures: number;
  readonly killed: boolean;
  readonly generation: bigint;
  series(slice: string, stage: Stage, arm?: Arm): Series;
  requests(slice?: string, arm?: Arm): Requests;
  gauge(name: string): Gauge;
  enabled(flag: string): boolean;
  arm(user: string): Arm;
  flush(): void;
  close(): void;
}
