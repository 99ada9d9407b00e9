// The public entry `tandem/traces`: files of measured and simulated times, and importers of other tools' output.
export { TraceError } from "./trace-error.ts"
export { writeFileAtomically, type FileSink } from "./atomic-file.ts"
export { decodeProfile, encodeProfile, profileFormat, readProfile, writeProfile } from "./profile-file.ts"
export { rescaleHostGaps, totalSeconds } from "./rescale.ts"
export type { ImportReport } from "./import-report.ts"
export { importKineto, importKinetoFile, type KinetoOptions } from "./kineto/import.ts"
