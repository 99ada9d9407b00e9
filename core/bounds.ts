// How many there may be, for fields of scenarios and for options of commands, which load no schema to show their help.

/** Of what costs neither memory nor time for each. */
export const mostPositive = 10_000_000

/** Ranks of a world: about 1 kB each where all are alike. */
export const mostRanks = 1_000_000

/** Scenarios of a study. */
export const mostPoints = 1_000_000
