// A profiler trace in memory: what attribution needs of each event and nothing else, in columns. Knows nothing of files
// or layers.

/** What kind of host event a row is. */
export const Host = {
  /** A PyTorch operator or an autograd node. */
  op: 0,
  /** The Python frame of an `nn.Module` call. */
  module: 1,
  /** `record_function` in user code. */
  annotation: 2,
  /** A CUDA runtime or driver call. */
  launch: 3,
  /** The Python frame of `Tensor.backward` or `autograd.backward`. */
  backwardCall: 4
} as const

type Column = Float64Array<ArrayBuffer> | Int32Array<ArrayBuffer> | Uint8Array<ArrayBuffer>

/** A growable column of float64, or of what narrower numbers suffice for. */
export class Numbers {
  kind: new (length: number) => Column
  values: Column
  length = 0
  constructor(kind: new (length: number) => Column = Float64Array) {
    this.kind = kind
    this.values = new kind(64)
  }
  push(value: number): void {
    if (this.length === this.values.length) this.#grow(this.kind, this.length * 2)
    this.values[this.length++] = value
  }
  /** As `push`, of an id: a column of int32 is widened for the first that does not fit. */
  pushId(value: number): void {
    if (this.kind === Int32Array && value !== (value | 0)) this.#grow(Float64Array, this.values.length)
    this.push(value)
  }
  #grow(kind: new (length: number) => Column, length: number): void {
    const grown = new kind(length)
    grown.set(this.values)
    this.kind = kind
    this.values = grown
  }
}

/** Events of the host, one row each. Times in microseconds after the first event of the file. */
export interface HostEvents {
  readonly kind: Numbers
  readonly name: Numbers
  readonly start: Numbers
  readonly end: Numbers
  readonly thread: Numbers
  /** Autograd sequence number, -1 where there is none. */
  readonly sequence: Numbers
  /** -1 where there is none. */
  readonly correlation: Numbers
  /** -1 where there is none. */
  readonly externalId: Numbers
}

/** Kernels, copies and fills of the device, one row each. Times in microseconds after the first event of the file. */
export interface DeviceEvents {
  readonly name: Numbers
  readonly start: Numbers
  readonly end: Numbers
  readonly device: Numbers
  /** -1 where there is none. */
  readonly stream: Numbers
  /** What the file gives as its process, a code of `KinetoTrace.processes`. */
  readonly process: Numbers
  readonly correlation: Numbers
  readonly externalId: Numbers
}

export interface GradientShape {
  readonly shape: ReadonlyArray<number>
  readonly dtype: string
}

/** Gradients that AccumulateGrad ops received: host rows, ascending, and of each the place of its shape in `shapes`. */
export interface GradientEvents {
  readonly row: Numbers
  readonly shape: Numbers
  readonly shapes: ReadonlyArray<GradientShape>
  /** AccumulateGrad ops whose shape the file does not say, or who received none. */
  readonly shapeless: number
}

/** What PyTorch records of a collective beside its time. */
export interface CollectiveRecord {
  readonly name: string | undefined
  /** Who takes part, as the file says it: what two ranks' records of one collective share. */
  readonly group: string
  readonly inputElements: number | undefined
  readonly outputElements: number | undefined
  readonly dtype: string | undefined
  readonly ranks: number | undefined
}

export interface KinetoTrace {
  readonly file: string
  readonly names: { readonly texts: ReadonlyArray<string> }
  readonly processes: { readonly texts: ReadonlyArray<string> }
  /** Process of each thread, both as codes. */
  readonly processOfThread: ReadonlyArray<number>
  readonly host: HostEvents
  readonly device: DeviceEvents
  readonly gradients: GradientEvents
  /** By host row of an autograd function of Python's: shapes of its inputs, as `shapeKey` has them. */
  readonly functionInputs: ReadonlyMap<number, ReadonlyArray<string>>
  /** By host row: `record_param_comms`, and the `nccl:` annotations that are all that PyTorch up to 2.2 writes. */
  readonly hostCollectives: ReadonlyMap<number, CollectiveRecord>
  /** By device row (NCCL kernels of recent PyTorch versions). */
  readonly deviceCollectives: ReadonlyMap<number, CollectiveRecord>
  /** Forward to backward links: thread and start of the forward op, by those of the backward node. */
  readonly links: ReadonlyMap<string, { readonly thread: number; readonly start: number }>
  readonly deviceName: string | undefined
  readonly worldSize: number | undefined
  readonly rank: number | undefined
  /** What times count from, in the file's own microseconds. */
  readonly base: number
  /** PyTorch 1.8 to 1.10: capital categories, and backward nodes without sequence numbers. */
  readonly isOld: boolean
  /** Categories of events that are not read and may be a device's. */
  readonly unread: ReadonlyArray<string>
  readonly warnings: ReadonlyArray<string>
}

/** Key of `KinetoTrace.links`. */
export const linkKey = (thread: number, start: number): string => `${thread} ${start}`
