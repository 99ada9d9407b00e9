// What the files of a study's folder are called, for whoever only names them.

export const studyNames: ReadonlyArray<string> = ["study.arrow", "study.csv", "report.html"]
