"""Random JSON schemas that something satisfies, of the keywords that docs/structured-output.md lists."""

import random

PATTERNS = ("^[a-z]{2,6}$", "^\\d{3}-\\d{4}$", "^(red|green|blue)[0-9]?$", "x", "^[A-Z][a-z]*( [A-Z][a-z]*){0,2}$", "[^\\x00-\\x7F]$")
FORMATS = ("date", "date-time", "time", "uuid", "email", "ipv4")
KEYS = ("name", "age", "tags", "a", "ab", 'q"u', "größe", "x y", "id", "value")


class Schemas:
    """One schema for each seed."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.definitions = {}

    def whole(self):
        schema = self.value(3)
        if self.definitions:
            schema = {"allOf": [schema], "$defs": self.definitions}
        return schema

    def chance(self, share):
        return self.rng.random() < share

    def value(self, depth):
        simple = (self.constant, self.enumeration, self.integer, self.number, self.string, self.string, self.plain)
        nested = (self.object, self.object, self.object, self.array, self.array, self.choice, self.one_of, self.both,
                  self.map, self.list, self.reference)
        made = self.rng.choice(simple if depth == 0 or self.chance(0.25) else nested)(depth)
        return {**made, "description": "made at random"} if self.chance(0.1) else made

    def plain(self, depth):
        return self.rng.choice(({"type": "null"}, {"type": "boolean"}, {"type": ["null", "integer"]}, {"type": "number"}))

    def constant(self, depth):
        return {"const": self.rng.choice((None, True, 17, -2.5, "é\n", [1, "a"], {"k": [None]}, ""))}

    def enumeration(self, depth):
        return {"enum": self.rng.sample(["north", "northwest", "south", "\u4f60\u597d", 1, 2.25, None, False, [], {}], 4)}

    def integer(self, depth):
        low = self.rng.randrange(-500, 500)
        out = {"type": "integer"}
        if self.chance(0.6):
            out[self.rng.choice(("minimum", "exclusiveMinimum"))] = low
        if self.chance(0.6):
            out[self.rng.choice(("maximum", "exclusiveMaximum"))] = low + self.rng.randrange(20, 2000)
        if self.chance(0.3):
            out["multipleOf"] = self.rng.randrange(1, 10)
        return out

    def number(self, depth):
        low = round(self.rng.uniform(-10, 10), 2)
        out = {"type": "number"}
        if self.chance(0.6):
            out[self.rng.choice(("minimum", "exclusiveMinimum"))] = low
        if self.chance(0.6):
            out[self.rng.choice(("maximum", "exclusiveMaximum"))] = round(low + self.rng.uniform(0.5, 200), 3)
        return out

    def string(self, depth):
        out = {"type": "string"}
        kind = self.rng.randrange(4)
        if kind == 0:
            out["pattern"] = self.rng.choice(PATTERNS)
        elif kind == 1:
            out["format"] = self.rng.choice(FORMATS)
        elif kind == 2:
            out["minLength"] = self.rng.randrange(4)
        if kind != 1:
            out["maxLength"] = self.rng.randrange(8, 20)
        return out

    def array(self, depth):
        out = {"type": "array", "items": self.value(depth - 1), "maxItems": self.rng.randrange(2, 5)}
        if self.chance(0.5):
            out["minItems"] = self.rng.randrange(3)
        return out

    def list(self, depth):
        items = [self.value(depth - 1) for _ in range(self.rng.randrange(1, 4))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": self.rng.randrange(len(items) + 1)}

    def object(self, depth):
        keys = self.rng.sample(KEYS, self.rng.randrange(1, 5))
        out = {"type": "object", "properties": {key: self.value(depth - 1) for key in keys}}
        out["required"] = [key for key in keys if self.chance(0.6)]
        if self.chance(0.7):
            out["additionalProperties"] = False
        return out

    def map(self, depth):
        out = {"type": "object", "additionalProperties": self.value(depth - 1)}
        if self.chance(0.6):
            out["maxProperties"] = self.rng.randrange(1, 4)
        elif self.chance(0.5):
            out["patternProperties"] = {"^[a-m]": {"type": "integer"}}
        else:
            out["properties"] = {"id": self.value(0)}
            out["required"] = ["id"]
        return out

    def choice(self, depth):
        return {"anyOf": [self.value(depth - 1) for _ in range(self.rng.randrange(2, 4))]}

    def one_of(self, depth):
        def variant(name):
            value = {"kind": {"const": name}, "body": self.value(depth - 1)}
            return {"type": "object", "properties": value, "required": ["kind", "body"], "additionalProperties": False}

        return {"oneOf": [variant("first"), variant("second")]}

    def both(self, depth):
        first = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
        second = {"type": "object", "properties": {"id": {"minimum": 3}, "value": self.value(depth - 1)}, "required": ["value"]}
        return {"allOf": [first, second]}

    def reference(self, depth):
        name = f"d{len(self.definitions)}"
        self.definitions[name] = {
            "type": "object",
            "properties": {"v": {"type": "boolean"}, "next": {"anyOf": [{"type": "null"}, {"$ref": f"#/$defs/{name}"}]}},
            "required": ["v", "next"],
            "additionalProperties": False,
        }
        return {"$ref": f"#/$defs/{name}"}
