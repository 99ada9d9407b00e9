// Where experts go: which are replicated and which device holds which, so that devices carry equal load. DeepSeek's
// expert-parallel load balancer (github.com/deepseek-ai/EPLB, MIT licence), as an independent implementation. Pure.

interface PlacementWorld {
  readonly nodes: number
  /** Devices over all nodes; a multiple of `nodes`. */
  readonly devices: number
}

interface Placement {
  /** Expert held at each physical place; places of one device are adjacent. */
  readonly expertOf: ReadonlyArray<number>
  /** Places that hold each expert. */
  readonly places: ReadonlyArray<ReadonlyArray<number>>
}

const argsort = (values: ReadonlyArray<number>): ReadonlyArray<number> =>
  values.map((_, index) => index).toSorted((a, b) => values[b]! - values[a]! || a - b)

/** Items into equally many per pack, heaviest first, each to the lightest pack that has room. */
const packed = (weights: ReadonlyArray<number>, packs: number): ReadonlyArray<ReadonlyArray<number>> => {
  const room = weights.length / packs
  const members: Array<Array<number>> = Array.from({ length: packs }, () => [])
  const loads = new Float64Array(packs)
  for (const item of argsort(weights)) {
    let lightest = -1
    for (let pack = 0; pack < packs; pack++) {
      if (members[pack]!.length >= room) continue
      if (lightest < 0 || loads[pack]! < loads[lightest]!) lightest = pack
    }
    members[lightest]!.push(item)
    loads[lightest]! += weights[item]!
  }
  return members
}

/** Adds replicas one by one, each to the expert with the most load per replica. */
const replicated = (
  weights: ReadonlyArray<number>,
  places: number
): { readonly expertOf: ReadonlyArray<number>; readonly counts: ReadonlyArray<number> } => {
  const expertOf = weights.map((_, index) => index)
  const counts = weights.map(() => 1)
  while (expertOf.length < places) {
    let hottest = 0
    for (let e = 1; e < weights.length; e++) {
      if (weights[e]! / counts[e]! > weights[hottest]! / counts[hottest]!) hottest = e
    }
    expertOf.push(hottest)
    counts[hottest]!++
  }
  return { expertOf, counts }
}

/**
 * Places `replicas` copies of experts on devices. Hierarchical where the groups of experts divide over the nodes: groups to
 * nodes, replicas inside each node, places to devices. Global otherwise. Throws RangeError when numbers do not divide.
 *
 * @param loads tokens of each expert, or an estimate
 */
export const placeExperts = (
  loads: ReadonlyArray<number>,
  replicas: number,
  groups: number,
  world: PlacementWorld
): Placement => {
  const experts = loads.length
  const hierarchical = groups % world.nodes === 0
  const [usedGroups, nodes] = hierarchical ? [groups, world.nodes] : [1, 1]
  if (experts % usedGroups !== 0) throw new RangeError(`${experts} experts in ${usedGroups} groups`)
  if (world.devices % nodes !== 0) throw new RangeError(`${world.devices} devices on ${nodes} nodes`)
  if (replicas % world.devices !== 0 || replicas < experts) {
    throw new RangeError(`${replicas} replicas of ${experts} experts on ${world.devices} devices`)
  }
  const groupSize = experts / usedGroups
  const groupLoads = Array.from({ length: usedGroups }, (_, group) =>
    loads.slice(group * groupSize, (group + 1) * groupSize).reduce((sum, load) => sum + load, 0)
  )
  const expertOf: Array<number> = []
  for (const groupsOfNode of packed(groupLoads, nodes)) {
    const members = groupsOfNode.flatMap((group) =>
      Array.from({ length: groupSize }, (_, index) => group * groupSize + index)
    )
    const own = members.map((expert) => loads[expert]!)
    const { expertOf: copies, counts } = replicated(own, replicas / nodes)
    const shares = copies.map((expert) => own[expert]! / counts[expert]!)
    for (const device of packed(shares, world.devices / nodes)) {
      for (const copy of device) expertOf.push(members[copies[copy]!]!)
    }
  }
  const places: Array<Array<number>> = loads.map(() => [])
  expertOf.forEach((expert, place) => places[expert]!.push(place))
  return { expertOf, places }
}
