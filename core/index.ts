// `tandem`: the words everything speaks (machine, ops, tensors, worlds, kernels), models, algorithms with their planners,
// and laws. Everything here runs without a simulator or a device.
export * from "./machine/lane.ts"
export { interpose, interposing } from "./machine/interpose.ts"
export * from "./machine/machine.ts"
export * from "./machine/op.ts"
export * from "./machine/tensor.ts"
export type * from "./machine/timeline.ts"
export { Dependencies } from "./machine/dependencies.ts"
export * from "./world.ts"
export type { Fault, LinkFault, RankFault } from "./fault.ts"
export type * from "./profile.ts"
export { Random } from "./random.ts"
export { Digest } from "./digest.ts"
export { InputError } from "./input-error.ts"

export { collectiveNamed, collectives, kernelNamed, kernels } from "./kernels/catalogue.ts"
export type { KernelName } from "./kernels/catalogue.ts"
export type { Scalars } from "./kernels/scalars.ts"
export type { Collective } from "./kernels/collectives.ts"
export { evaluate, evaluateCollective } from "./kernels/evaluate.ts"
export { defineKernel, flag, number, operand, text } from "./kernels/kernel.ts"
export type { Attributes, Declaration, Kernel, Operand, Work } from "./kernels/kernel.ts"

export { byBlock, callsOf, parameterCount, workOf } from "./models/layer-graph.ts"
export type { KernelCall, Layer, LayerGraph, Value } from "./models/layer-graph.ts"
export { GraphBuilder } from "./models/graph-builder.ts"
export { gpt2 } from "./models/gpt2.ts"
export type { Gpt2Config } from "./models/gpt2.ts"
export { llama } from "./models/llama.ts"
export type { LlamaConfig } from "./models/llama.ts"
export { initialParameters } from "./models/initial-values.ts"
export { mixtral } from "./models/mixtral.ts"
export type { MixtralConfig } from "./models/mixtral.ts"

export { arbitrary, defaultsOf, SettingsError } from "./algorithms/algorithm.ts"
export type { Algorithm, Arbitrary, Draws } from "./algorithms/algorithm.ts"
export { dataParallelAlgorithm } from "./algorithms/data-parallel/algorithm.ts"
export type {
  DataParallelAlgorithm,
  PlanDescription,
  PlannedAlgorithm,
  PlanningFacts
} from "./algorithms/data-parallel/algorithm.ts"
export {
  dataParallelAlgorithms,
  dataParallelNamed,
  dataParallelNames,
  DataParallelSettings,
  planDataParallel
} from "./algorithms/data-parallel/algorithms.ts"
export type { DataParallelName } from "./algorithms/data-parallel/algorithms.ts"
export { distributedDataParallel } from "./algorithms/data-parallel/ddp/program.ts"
export type { DdpPlan, GradientRef } from "./algorithms/data-parallel/ddp/program.ts"
export { diloco } from "./algorithms/data-parallel/diloco/program.ts"
export type { DilocoPlan } from "./algorithms/data-parallel/diloco/program.ts"
export { partialLocalSgd } from "./algorithms/data-parallel/partial-local-sgd/program.ts"
export type { PartialLocalSgdPlan } from "./algorithms/data-parallel/partial-local-sgd/program.ts"
export { kernelModel } from "./algorithms/data-parallel/kernel-model.ts"
export type {
  KernelModel,
  KernelModelBuilder,
  KernelModelOptions
} from "./algorithms/data-parallel/kernel-model.ts"
export { observed } from "./algorithms/data-parallel/observe.ts"
export type { Observation } from "./algorithms/data-parallel/observe.ts"
export { learningRateAt, optimizerState, optimizerUpdate } from "./algorithms/data-parallel/optimizer.ts"
export type { Optimizer, RateSchedule } from "./algorithms/data-parallel/optimizer.ts"
export {
  elementwise,
  profiledModel,
  submitEarlier,
  waitFor
} from "./algorithms/data-parallel/training-model.ts"
export type {
  TrainingLayer,
  TrainingModel,
  TrainingModelBuilder
} from "./algorithms/data-parallel/training-model.ts"

export { ddpBuckets, perLayerBuckets, singleBucket } from "./algorithms/data-parallel/plan/buckets.ts"
export type { Bucket, BucketLimits, GradientSize } from "./algorithms/data-parallel/plan/buckets.ts"
export { evaluateSets, exposedSecondsOf, syncProblem } from "./algorithms/data-parallel/plan/cost.ts"
export type {
  Deadline,
  LayerTimes,
  SyncCost,
  SyncProblem,
  SyncRules,
  UpdateOrder
} from "./algorithms/data-parallel/plan/cost.ts"
export { fillBubbles } from "./algorithms/data-parallel/plan/dreamddp.ts"
export { planFragments } from "./algorithms/data-parallel/plan/fragments.ts"
export type { Fragment, FragmentPlan, FragmentSettings } from "./algorithms/data-parallel/plan/fragments.ts"
export { lowerBoundSeconds } from "./algorithms/data-parallel/plan/lower-bound.ts"
export { planSync, syncPlanners } from "./algorithms/data-parallel/plan/planners.ts"
export { makeSyncPlan } from "./algorithms/data-parallel/plan/sync-plan.ts"
export type { SyncMethod, SyncPlan } from "./algorithms/data-parallel/plan/sync-plan.ts"

export { CachePlans, largestBatch } from "./algorithms/kv-serving/admission.ts"
export type { CachePlan } from "./algorithms/kv-serving/admission.ts"
export { keptGenerated, keptTokens, planChoices } from "./algorithms/kv-serving/choices.ts"
export { roomsOf } from "./algorithms/kv-serving/choice.ts"
export type { ChoiceCall, LayerChoice } from "./algorithms/kv-serving/choice.ts"
export { disaggregated } from "./algorithms/kv-serving/disaggregated.ts"
export { cacheBytes, weightBytes } from "./algorithms/kv-serving/model.ts"
export type { DecoderModel } from "./algorithms/kv-serving/model.ts"
export type { Sequence, ServingRequest } from "./algorithms/kv-serving/sequence.ts"
export { serve, serveThroughHost } from "./algorithms/kv-serving/serve.ts"
export type { ServingOutcome, ServingPlan } from "./algorithms/kv-serving/server.ts"
export { CacheSettings, cacheMethods } from "./algorithms/kv-serving/methods.ts"

export * from "./units.ts"

export type { Execution, RankBytes, StepEnds, Traffic, Violation } from "./laws/execution.ts"
export { journaled } from "./laws/journal.ts"
export type { Journal, JournalEntry } from "./laws/journal.ts"
export { assertLaws, checkLaws, laws } from "./laws/laws.ts"
export type { Law, LawName } from "./laws/laws.ts"
export { checkServing, servingLaws } from "./laws/serving.ts"

export { ExpertCache } from "./algorithms/expert-offload/cache/expert-cache.ts"
export type { CacheOptions, CacheSink, Pool } from "./algorithms/expert-offload/cache/expert-cache.ts"
export type { Decision, MayLeave, ReplacementPolicy } from "./algorithms/expert-offload/cache/policy.ts"
export { cheHitRatio, topHitRatio } from "./algorithms/expert-offload/closed-forms.ts"
export { zipf } from "./algorithms/expert-offload/zipf.ts"
export { countLoads } from "./algorithms/expert-offload/count-loads.ts"
export type { LoadCount } from "./algorithms/expert-offload/count-loads.ts"
export { layerCall, usesOf } from "./algorithms/expert-offload/demand.ts"
export type { Demand, ExpertId, ExpertShape, LayerCall } from "./algorithms/expert-offload/demand.ts"
export { moeModels } from "./algorithms/expert-offload/model.ts"
export type { MoeModel } from "./algorithms/expert-offload/model.ts"
export { fewestLoads } from "./algorithms/expert-offload/optimum.ts"
export type { SlotScope } from "./algorithms/expert-offload/optimum.ts"
export type { Accuracy, Predictor } from "./algorithms/expert-offload/predictor/predictor.ts"
export { measureAccuracy, trainPredictor } from "./algorithms/expert-offload/predictor/train.ts"
export type { PredictorWeights } from "./algorithms/expert-offload/predictor/trained.ts"
export type { ChoicesRole } from "./algorithms/expert-offload/decoder.ts"
export { expertOffload } from "./algorithms/expert-offload/program.ts"
export type { Need, OffloadLog, OffloadPlan, Readiness } from "./algorithms/expert-offload/program.ts"
export { demandOf, generateRouting } from "./algorithms/expert-offload/routing.ts"
export type { RoutedSteps } from "./algorithms/expert-offload/routing.ts"
export { routingPresets } from "./algorithms/expert-offload/routing-generator.ts"
export {
  ExpertOffloadSettings,
  expertOffloadNames,
  offloadAlgorithms
} from "./algorithms/expert-offload/algorithms.ts"
export { makeStrategy } from "./algorithms/expert-offload/strategy.ts"
export type { OffloadAlgorithm, StrategyFacts } from "./algorithms/expert-offload/algorithm.ts"
export type { Strategy } from "./algorithms/expert-offload/strategy.ts"
export { scheduleTokens, touched } from "./algorithms/expert-offload/token-scheduler.ts"
export type { Workload } from "./algorithms/expert-offload/workload.ts"

export { makeCostModel } from "./cost/cost-model.ts"
export type { CostModel, CostOptions, Estimate, HostTime } from "./cost/cost-model.ts"
export { CollectiveTable } from "./cost/collective-table.ts"
export { OpTable } from "./cost/op-table.ts"
export type { CostSource, Launch } from "./cost/op-table.ts"
export type { Cost, Provenance } from "./cost/provenance.ts"
export { deviceNamed, devices } from "./cost/devices.ts"
export type { Device } from "./cost/devices.ts"
export { aloneSeconds } from "./wire/alone.ts"
export type { CollectiveOptions } from "./wire/legs.ts"
export { Network } from "./wire/network.ts"
export type { CollectiveAlgorithm, LinkResult } from "./wire/network.ts"
export { distinct, interchangeable } from "./wire/symmetry.ts"

export { agree, agrees } from "./agreement/agree.ts"
export type { Agreement } from "./agreement/agree.ts"
export type { Tolerance } from "./agreement/values.ts"
export { cacheMethodList } from "./algorithms/kv-serving/methods.ts"
export { MoeTrainingSettings, moeAlgorithms, moeTrainingNames } from "./algorithms/moe-training/algorithms.ts"
export { planWith } from "./algorithms/moe-training/planning.ts"
export type { PlannedMoe } from "./algorithms/moe-training/planning.ts"
export type { MoeModel as MoeTrainingModel } from "./algorithms/moe-training/model.ts"
export { moeTraining } from "./algorithms/moe-training/program.ts"
export type { MoePlan } from "./algorithms/moe-training/program.ts"
