#!/usr/bin/env node
// Starts the simulator.
import { launch } from "./launch.js"

await launch("sim", import.meta.url)
