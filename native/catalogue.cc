// Signatures of kernels, as core/kernels/signature.ts reads them: "inp[..., in], weight[out, in], bias[out]? -> out[..., out]".
// The table in signatures.inc is made from the catalogue by test/native/signatures.test.ts.
#include "catalogue.h"

#include <algorithm>
#include <cctype>
#include <cmath>

namespace tandem {

namespace {

struct Entry {
  const char* name;
  const char* signature;
  /** A digit for each operand whose dtype is fixed, "-" where any will do. */
  const char* inputDtypes;
  const char* outputDtypes;
};

const Entry entries[] = {
#include "signatures.inc"
};

struct Extent {
  std::string factor;
  std::string symbol;
};

struct Pattern {
  std::string name;
  std::vector<Extent> head, tail;
  bool open = false;
  bool optional = false;
  /** Attributes that must be set, or with false unset, for the operand to be there. */
  std::vector<std::pair<std::string, bool>> conditions;
};

struct Signature {
  std::vector<Pattern> inputs, outputs;
};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char c : text) {
    if (c == at) {
      parts.emplace_back();
    } else if (c != ' ') {
      parts.back() += c;
    }
  }
  if (parts.back().empty()) parts.pop_back();
  return parts;
}

Extent extentOf(const std::string& text) {
  const size_t star = text.find('*');
  if (star == std::string::npos) return {"", text};
  return {text.substr(0, star), text.substr(star + 1)};
}

/** Operands of one side: "name[extents]" and, after a "?", conditions. */
std::vector<Pattern> patternsOf(const std::string& side) {
  std::vector<Pattern> patterns;
  for (size_t open = side.find('['); open != std::string::npos; open = side.find('[', open)) {
    const size_t close = side.find(']', open);
    size_t begin = open;
    while (begin > 0 && (std::isalnum(static_cast<unsigned char>(side[begin - 1])) != 0 || side[begin - 1] == '_')) begin--;
    Pattern pattern;
    pattern.name = side.substr(begin, open - begin);
    for (const std::string& part : split(side.substr(open + 1, close - open - 1), ',')) {
      if (part == "...") {
        pattern.open = true;
      } else {
        (pattern.open ? pattern.tail : pattern.head).push_back(extentOf(part));
      }
    }
    open = close + 1;
    if (open < side.size() && side[open] == '?') {
      const size_t end = side.find_first_of(", ", open);
      const std::string conditions = side.substr(open + 1, end == std::string::npos ? end : end - open - 1);
      pattern.optional = conditions.empty();
      for (const std::string& one : split(conditions, '&')) {
        const bool unset = one[0] == '!';
        pattern.conditions.emplace_back(unset ? one.substr(1) : one, !unset);
      }
    }
    patterns.push_back(std::move(pattern));
  }
  return patterns;
}

struct Known {
  const Entry* entry;
  Signature signature;
};

const Known* knownNamed(const std::string& name) {
  static const std::map<std::string, Known> known = [] {
    std::map<std::string, Known> all;
    for (const Entry& entry : entries) {
      const std::string text = entry.signature;
      const size_t arrow = text.find("->");
      all[entry.name] = {&entry, {patternsOf(text.substr(0, arrow)), patternsOf(text.substr(arrow + 2))}};
    }
    return all;
  }();
  const auto found = known.find(name);
  return found == known.end() ? nullptr : &found->second;
}

bool isSet(const Call& call, const std::string& flag) {
  const auto found = call.attributes.find(flag);
  if (found == call.attributes.end()) return false;
  if (const bool* value = std::get_if<bool>(&found->second)) return *value;
  if (const double* value = std::get_if<double>(&found->second)) return *value != 0;
  return !std::get<std::string>(found->second).empty();
}

bool present(const Call& call, const Pattern& pattern) {
  return std::all_of(pattern.conditions.begin(), pattern.conditions.end(),
                     [&](const auto& condition) { return isSet(call, condition.first) == condition.second; });
}

/** What the shapes so far have bound. */
struct Bindings {
  std::map<std::string, int64_t> extents;
  std::optional<Shape> open;

  std::optional<int64_t> valueOf(const std::string& word) const {
    if (std::isdigit(static_cast<unsigned char>(word[0])) != 0) return std::stoll(word);
    const auto found = extents.find(word);
    if (found == extents.end()) return std::nullopt;
    return found->second;
  }

  /** Binds or checks one extent; false when it does not fit. */
  bool take(const Extent& extent, int64_t actual) {
    const std::optional<int64_t> factor = extent.factor.empty() ? 1 : valueOf(extent.factor);
    if (!factor || *factor <= 0) return false;
    if (const std::optional<int64_t> value = valueOf(extent.symbol)) return *value * *factor == actual;
    if (actual % *factor != 0) return false;
    extents[extent.symbol] = actual / *factor;
    return true;
  }

  bool takeOpen(const Shape& middle) {
    if (open) return *open == middle;
    open = middle;
    int64_t rows = 1;
    for (const int64_t extent : middle) rows *= extent;
    return take({"", "rows"}, rows);
  }

  bool take(const Pattern& pattern, const Shape& shape) {
    const size_t fixed = pattern.head.size() + pattern.tail.size();
    if (pattern.open ? shape.size() < fixed : shape.size() != fixed) return false;
    const size_t tail = shape.size() - pattern.tail.size();
    for (size_t i = 0; i < pattern.head.size(); i++) {
      if (!take(pattern.head[i], shape[i])) return false;
    }
    const auto begin = shape.begin();
    if (pattern.open && !takeOpen({begin + static_cast<std::ptrdiff_t>(pattern.head.size()),
                                   begin + static_cast<std::ptrdiff_t>(tail)})) {
      return false;
    }
    for (size_t i = 0; i < pattern.tail.size(); i++) {
      if (!take(pattern.tail[i], shape[tail + i])) return false;
    }
    return true;
  }
};

/** Extents that attributes fix: those of their own name, and what follows from heads. */
void bindAttributes(const Call& call, Bindings& bindings) {
  for (const auto& [name, value] : call.attributes) {
    const double* number = std::get_if<double>(&value);
    if (number == nullptr || *number != std::floor(*number) || !(*number >= 0) || *number > 9e15) continue;
    bindings.extents[name] = static_cast<int64_t>(*number);
  }
  if (call.attributes.count("kvHeads") == 0 || call.attributes.count("heads") == 0) return;
  const int64_t heads = call.integer("heads");
  const int64_t kvHeads = call.integer("kvHeads");
  const int64_t headWidth = call.integer("headWidth");
  if (kvHeads <= 0 || heads <= 0 || headWidth <= 0 || heads % kvHeads != 0) {
    throw BadCall(call.kernel + ": " + std::to_string(heads) + " heads cannot share " + std::to_string(kvHeads) +
                  " key/value heads of " + std::to_string(headWidth));
  }
  bindings.extents["q"] = heads * headWidth;
  bindings.extents["kv"] = kvHeads * headWidth;
  bindings.extents["qkv"] = (heads + 2 * kvHeads) * headWidth;
}

void checkSide(const Call& call, const std::vector<Pattern>& patterns, const std::vector<Operand>& operands, const char* side,
               const char* signature, Bindings& bindings) {
  size_t index = 0;
  for (const Pattern& pattern : patterns) {
    if (!present(call, pattern)) continue;
    if (index == operands.size()) {
      if (pattern.optional) break;
      throw BadCall(call.kernel + ": " + side + " " + std::to_string(index) + " (" + pattern.name +
                    ") is missing; signature: " + signature);
    }
    if (!bindings.take(pattern, operands[index].shape)) {
      throw BadCall(call.kernel + ": " + side + " " + std::to_string(index) + " (" + pattern.name + ") has shape " +
                    textOf(operands[index].shape) + "; signature: " + signature);
    }
    index++;
  }
  if (index < operands.size()) {
    throw BadCall(call.kernel + ": " + std::to_string(operands.size()) + " " + side + "s given, " + std::to_string(index) +
                  " expected; signature: " + signature);
  }
}

void checkDtypes(const Call& call, const std::vector<Operand>& operands, const char* side, const std::string& dtypes) {
  for (size_t i = 0; i < operands.size() && i < dtypes.size(); i++) {
    if (dtypes[i] == '-' || dtypes[i] - '0' == static_cast<int>(operands[i].dtype)) continue;
    throw BadCall(call.kernel + ": " + side + " " + std::to_string(i) + " has dtype " +
                  std::to_string(static_cast<int>(operands[i].dtype)) + "; expected " + dtypes[i]);
  }
}

}  // namespace

std::string textOf(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); i++) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

void checkOperands(const Call& call) {
  if (!call.parts.empty()) {
    for (const Part& part : call.parts) checkOperands(partOf(call, part));
    return;
  }
  const Known* known = knownNamed(call.kernel);
  if (known == nullptr) return;
  checkDtypes(call, call.inputs, "input", known->entry->inputDtypes);
  checkDtypes(call, call.outputs, "output", known->entry->outputDtypes);
  if (checkByRule(call)) return;
  Bindings bindings;
  bindAttributes(call, bindings);
  checkSide(call, known->signature.inputs, call.inputs, "input", known->entry->signature, bindings);
  if (!bindings.open) bindings.takeOpen({});
  checkSide(call, known->signature.outputs, call.outputs, "output", known->entry->signature, bindings);
}

}  // namespace tandem
