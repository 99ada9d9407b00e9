#!/usr/bin/env node
// Starts the executor.
import { launch } from "./launch.js"

await launch("exec", import.meta.url)
