// What a GPU is to show of cuDNN's attention.
import { bench, part, tests, type Part, type PartChoices, type Step } from "./gpu-part.ts"

/** cuDNN's attention: its graphs case by case, kernels held to their references, then times beside those of own kernels, in turn, twice. */
export const byCudnn = (choices: PartChoices): Part => {
  const on = ["--backend", choices.backend]
  const needs = ["cudnn"]
  const inTurn = (name: string, command: ReadonlyArray<string>): ReadonlyArray<Step> =>
    ["", " again"].flatMap((again) =>
      ["own", "cudnn"].map((attention) => ({
        name: `${name}, ${attention}${again}`,
        command,
        env: { TANDEM_CUDA_ATTENTION: attention },
        ...(attention === "cudnn" ? { needs } : {})
      }))
    )
  const attention = (batch: number) =>
    inTurn(
      `attention of ${batch} x 1024`,
      bench("kernels", ...on, "--batch", String(batch), "--only", "attention")
    )
  const steps = [
    { name: "graphs", command: ["native/test/run.sh", "cudnn-gpu"], needs: ["nvcc", ...needs] },
    { ...tests(choices, "cudnn", "test/native/cudnn.test.ts"), needs },
    ...attention(4),
    ...attention(32),
    ...inTurn("step of 4 x 1024", bench("train-step", ...on, "--batch", "4", "--rounds", "5")),
    ...inTurn(
      "step of 32 x 1024",
      bench("train-step", ...on, "--batch", "32", "--rounds", "4", "--steps", "4")
    )
  ]
  return part("cudnn", 480, steps, { onCpu: false })
}
