// A port of this host for somebody to listen on soon.
import { createServer } from "node:net"

/** One of the loopback that nobody listens on now. Whoever takes it first has it. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
      .on("error", reject)
      .listen(0, "127.0.0.1", () => {
        const { port } = server.address() as { readonly port: number }
        server.close(() => resolve(port))
      })
  })
