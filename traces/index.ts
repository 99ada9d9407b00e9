// The public entry `tandem/traces`: files of measured and simulated times, and importers of other tools' output.
export { TraceError } from "./trace-error.ts"
export { writeFileAtomically, type FileSink } from "./atomic-file.ts"
export { decodeProfile, encodeProfile, profileFormat, readProfile, writeProfile } from "./profile-file.ts"
export { rescaleHostGaps, totalSeconds } from "./rescale.ts"
export {
  foldTimeline,
  readTimeline,
  timelineFormat,
  writeTimeline,
  writeTimelineParts
} from "./timeline-file.ts"
export { chromeTrace } from "./perfetto.ts"
export {
  decodeJournals,
  encodeJournals,
  journalFormat,
  readJournals,
  writeJournals,
  type FinalValues,
  type RecordedCalls
} from "./journal-file.ts"
export { opLogFormat, readOpLogs, writeOpLogs } from "./op-log-file.ts"
export { foldRouting, routingFormat, writeRouting, writeRoutingParts, type Routing } from "./routing-file.ts"
export {
  decodeWeights,
  encodeWeights,
  readWeights,
  weightsFormat,
  writeWeights,
  type SavedParameter,
  type SavedWeights
} from "./weights-file.ts"
export type { ImportReport } from "./import-report.ts"
export type { TableOptions } from "./table-profile.ts"
export { importKineto, importKinetoFile, importKinetoFiles, type KinetoOptions } from "./kineto/import.ts"
export { importCsv, importCsvFile } from "./csv.ts"
export { importNcclTests, importNcclTestsFile, type NcclTestsOptions } from "./nccl-tests.ts"
export { parseRequestTrace, parseRequestTraces } from "./requests/request-trace.ts"
export type { RequestTrace, TracedRequest } from "./requests/traced.ts"
export { importRouting, importRoutingFile, importRoutingFiles, routingRows } from "./routing/import.ts"
export { routingSources, type RoutingSource } from "./routing/sources.ts"
export type { RoutingOptions, RoutingReport } from "./routing/tokens.ts"
export { readRoutedSteps } from "./routing-trace.ts"
export { diagnose, type Diagnosis } from "./doctor.ts"
