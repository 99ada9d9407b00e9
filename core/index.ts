// `tandem`: the words everything speaks (machine, ops, tensors, worlds, kernels), models, algorithms with their planners,
// and laws. Everything here runs without a simulator or a device.
export * from "./machine/lane.ts"
export * from "./machine/machine.ts"
export * from "./machine/op.ts"
export * from "./machine/tensor.ts"
export type * from "./machine/timeline.ts"
export { Dependencies } from "./machine/dependencies.ts"
export * from "./world.ts"
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

export { planDataParallel } from "./algorithms/data-parallel/algorithm.ts"
export type { PlannedAlgorithm, PlanningFacts } from "./algorithms/data-parallel/algorithm.ts"
export { distributedDataParallel } from "./algorithms/data-parallel/ddp.ts"
export type { DdpPlan, GradientRef } from "./algorithms/data-parallel/ddp.ts"
export { diloco } from "./algorithms/data-parallel/diloco.ts"
export type { DilocoPlan } from "./algorithms/data-parallel/diloco.ts"
export { partialLocalSgd } from "./algorithms/data-parallel/partial-local-sgd.ts"
export type { PartialLocalSgdPlan } from "./algorithms/data-parallel/partial-local-sgd.ts"
export { DataParallelSettings, dataParallelNames } from "./algorithms/data-parallel/settings.ts"
export { kernelModel } from "./algorithms/data-parallel/kernel-model.ts"
export type {
  KernelModel,
  KernelModelBuilder,
  KernelModelOptions
} from "./algorithms/data-parallel/kernel-model.ts"
export { observed } from "./algorithms/data-parallel/observe.ts"
export type { Observation } from "./algorithms/data-parallel/observe.ts"
export { learningRateAt, optimizerStep } from "./algorithms/data-parallel/optimizer.ts"
export type { Optimizer, RateSchedule } from "./algorithms/data-parallel/optimizer.ts"
export { elementwise, profiledModel, waitFor } from "./algorithms/data-parallel/training-model.ts"
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
export { FragmentSettingsError, planFragments } from "./algorithms/data-parallel/plan/fragments.ts"
export type { Fragment, FragmentPlan, FragmentSettings } from "./algorithms/data-parallel/plan/fragments.ts"
export { lowerBoundSeconds } from "./algorithms/data-parallel/plan/lower-bound.ts"
export { planSync, syncPlanners } from "./algorithms/data-parallel/plan/planners.ts"
export { makeSyncPlan } from "./algorithms/data-parallel/plan/sync-plan.ts"
export type { SyncMethod, SyncPlan } from "./algorithms/data-parallel/plan/sync-plan.ts"

export { CachePlans, largestBatch } from "./algorithms/kv-serving/admission.ts"
export type { CachePlan } from "./algorithms/kv-serving/admission.ts"
export { keptGenerated, keptTokens, planChoices, roomsOf } from "./algorithms/kv-serving/choice.ts"
export type { ChoiceCall, LayerChoice } from "./algorithms/kv-serving/choice.ts"
export { disaggregated } from "./algorithms/kv-serving/disaggregated.ts"
export { cacheBytes, weightBytes } from "./algorithms/kv-serving/model.ts"
export type { DecoderModel } from "./algorithms/kv-serving/model.ts"
export type { Sequence, ServingRequest } from "./algorithms/kv-serving/sequence.ts"
export { serve, serveThroughHost } from "./algorithms/kv-serving/serve.ts"
export type { ServingOutcome, ServingPlan } from "./algorithms/kv-serving/server.ts"
export { CacheSettings, cacheMethods } from "./algorithms/kv-serving/settings.ts"

export { KvServingScenario } from "./algorithms/kv-serving/scenario.ts"
export { DataParallelScenario } from "./algorithms/data-parallel/scenario.ts"
export { defaultTask, isTask, scenarioSchemas, Study } from "./scenario.ts"
export type { Scenario, Task } from "./scenario.ts"
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
export { cheHitRatio, topHitRatio, zipf } from "./algorithms/expert-offload/closed-forms.ts"
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
export { choicesName, expertOffload } from "./algorithms/expert-offload/program.ts"
export type { Need, OffloadLog, OffloadPlan, Readiness } from "./algorithms/expert-offload/program.ts"
export { demandOf, generateRouting } from "./algorithms/expert-offload/routing.ts"
export type { RoutedSteps } from "./algorithms/expert-offload/routing.ts"
export { routingPresets } from "./algorithms/expert-offload/routing-generator.ts"
export { ExpertOffloadScenario } from "./algorithms/expert-offload/scenario.ts"
export { ExpertOffloadSettings, expertOffloadNames } from "./algorithms/expert-offload/settings.ts"
export { makeStrategy } from "./algorithms/expert-offload/strategy.ts"
export type { Strategy, StrategyFacts } from "./algorithms/expert-offload/strategy.ts"
export { scheduleTokens, touched } from "./algorithms/expert-offload/token-scheduler.ts"
export type { Workload } from "./algorithms/expert-offload/workload.ts"
