// How processes that tests start begin: what they load of other packages comes from the bundle of them, and what they write for a
// moment goes where the run's does.
import { inject } from "vitest"

process.env["NODE_OPTIONS"] = inject("nodeOptions")
process.env["TMPDIR"] = inject("temporary")
