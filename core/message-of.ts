// What somebody threw, in words. Knows nothing of the errors that people can mend (input-error.ts).

/** What a thrown value, which need not be an error, says: without its name, without its stack. */
export const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
