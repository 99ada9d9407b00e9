// How processes that tests start begin: what they load of other packages comes from the bundle of them.
import { inject } from "vitest"

process.env["NODE_OPTIONS"] = inject("nodeOptions")
