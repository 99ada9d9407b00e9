/** What somebody threw, which need not be an error, says of itself: without its name, without its stack. */
export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
