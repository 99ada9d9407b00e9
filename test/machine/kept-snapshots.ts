// Snapshots that stay in memory, for tests: taken at the ends of some steps, or handed back to a run that goes on from one.
import * as Effect from "effect/Effect"
import type { TensorData } from "../../core/machine/tensor.ts"
import type { AtStepEnd, Kept, Snapshots } from "../../core/machine/snapshots.ts"

type Values = ReadonlyMap<string, TensorData>

export class KeptSnapshots implements Snapshots {
  readonly from: number
  readonly #earlier: KeptSnapshots | undefined
  readonly #asked: (step: number) => AtStepEnd
  /** By step, then rank. */
  readonly #taken = new Map<string, Values>()
  /** Persistent tensors that were asked for. */
  readonly restoredNames = new Set<string>()

  constructor(asked: (step: number) => AtStepEnd, from = 0, earlier?: KeptSnapshots) {
    this.#asked = asked
    this.from = from
    this.#earlier = earlier
  }

  /** Of a run that goes on from a step that this one has kept. */
  goingOnFrom(step: number): KeptSnapshots {
    return new KeptSnapshots(() => "go on", step, this)
  }

  of(rank: number, step: number): Values {
    const values = this.#taken.get(`${step} ${rank}`)
    if (values === undefined) throw new Error(`no snapshot of rank ${rank} after step ${step}`)
    return values
  }

  get count(): number {
    return this.#taken.size
  }

  readonly restored = (rank: number, { name }: Kept): TensorData => {
    this.restoredNames.add(name)
    const values = this.#earlier!.of(rank, this.from).get(name)
    if (values === undefined) throw new Error(`"${name}" is not in the snapshot`)
    return values
  }

  readonly atStepEnd = (_: number, step: number): Effect.Effect<AtStepEnd> =>
    Effect.succeed(this.#asked(step))

  readonly take: Snapshots["take"] = (rank, step, tensors, valuesOf) =>
    Effect.gen({ self: this }, function* () {
      const values = new Map<string, TensorData>()
      for (const tensor of tensors) values.set(tensor.name, (yield* valuesOf(tensor)).slice())
      this.#taken.set(`${step} ${rank}`, values)
    })
}
