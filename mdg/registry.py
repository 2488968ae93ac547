"""Registries: every part of a run is chosen by its ``type:`` in YAML and owns the schema of its own options.

A component is a class and a pydantic model of its options, registered together::

    class BlurOptions(Options):
        p: float = Field(0.2, ge=0, le=1)

    @TRANSFORMS.register(BlurOptions)
    class Blur:
        def __init__(self, options: BlurOptions): ...

The constructor takes the options, so that a default is stated once, and behind them, as keywords, whatever context the
code that builds it passes (channel counts, for instance). A module listed under ``custom_imports`` can register more.

What is shipped declares its options in :mod:`mdg.options`, apart from the classes, so that a configuration can be read
and checked without PyTorch; the classes are imported when the first part of a registry is built.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from mdg.errors import ConfigError, nearest

if TYPE_CHECKING:
    from mmengine.registry import Registry

T = TypeVar("T", bound=type)


class Options(BaseModel):
    """Base of all typed options: immutable; a key that no field reads is an error that names the nearest one; a number
    is finite and no boolean."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="wrap")
    @classmethod
    def _check_keys(cls, values: Any, handler: ModelWrapValidatorHandler[Options]) -> Options:
        if not isinstance(values, dict):
            if isinstance(values, cls):
                return handler(values)
            message = f"expected a mapping with keys out of: {_listed(cls.model_fields)}"
            raise ValidationError.from_exception_data(cls.__name__, [_line_error("no_mapping", (), message, values)])
        unknown = [key for key in values if key not in cls.model_fields]
        if not unknown:
            options = handler(values)
            _refuse_booleans(cls.__name__, values, {key: getattr(options, key) for key in values})
            return options
        errors = [_line_error("unknown_key", (str(key),), cls._expected(key), values[key]) for key in unknown]
        try:
            handler({key: value for key, value in values.items() if key not in unknown})
        except ValidationError as error:  # the other mistakes are reported beside these
            for item in error.errors(include_url=False):
                errors.append(_line_error(item["type"], item["loc"], item["msg"], item["input"], item.get("ctx")))
        raise ValidationError.from_exception_data(cls.__name__, errors)

    @classmethod
    def _expected(cls, key: Any) -> str:
        """What is said of a key that does not exist."""
        return f"expected one of: {_listed(cls.model_fields)}.{nearest(key, cls.model_fields)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "(no options)"


def _refuse_booleans(owner: str, given: Any, became: Any) -> None:
    """pydantic takes true for 1, and YAML takes yes, no, on and off for booleans: ``epochs: no`` is a mistake."""
    message = "expected a number. YAML reads yes, no, on, off, true and false as a boolean; write a number"
    errors = [_line_error("boolean", path, message, got) for path, got in _booleans_made_numbers(given, became, ())]
    if errors:
        raise ValidationError.from_exception_data(owner, errors)


def _booleans_made_numbers(given: Any, became: Any, path: tuple) -> Iterator[tuple[tuple, bool]]:
    if isinstance(given, bool) and type(became) in (int, float):
        yield path, given
    elif isinstance(given, (list, tuple)) and isinstance(became, (list, tuple)) and len(given) == len(became):
        for place, pair in enumerate(zip(given, became, strict=True)):
            yield from _booleans_made_numbers(*pair, (*path, place))
    elif isinstance(given, dict) and isinstance(became, dict):
        for key in given.keys() & became.keys():
            yield from _booleans_made_numbers(given[key], became[key], (*path, key))


def _line_error(type: str, loc: tuple, msg: str, input: Any, ctx: dict[str, Any] | None = None) -> InitErrorDetails:
    error = PydanticCustomError(type, "{message}", {**(ctx or {}), "message": msg})
    return InitErrorDetails(type=error, loc=loc, input=input)


class ComponentOptions(Options):
    """Options of a registered component; ``type`` is the registered name."""

    registry: ClassVar[ComponentRegistry | None] = None

    type: str

    @classmethod
    def _expected(cls, key: Any) -> str:
        registry = cls.registry
        others: list[str] = []
        if registry is not None:
            others = [name for name in registry.names() if key in registry.options_of(name).model_fields]
        if not others:
            return super()._expected(key)
        type_name = cls.model_fields["type"].default
        elsewhere = f"It is a key of {', '.join(others)}, not of {type_name}."
        return f"expected one of: {_listed(cls.model_fields)}. {elsewhere}{nearest(str(key), cls.model_fields)}"


class ComponentRegistry:
    """An mmengine registry of classes beside the schemas of their options.

    Args:
        name: What the entries are, as used in messages ("backbone").
        declared: Module that declares the options of the entries shipped with mdg; imported before the first look-up.
        package: Module that registers their classes; imported before the first one is built.
    """

    def __init__(self, name: str, declared: str, package: str):
        self.name, self._declared_in, self._package = name, declared, package
        self._shipped: dict[str, type[Options]] = {}
        self._options: dict[str, type[ComponentOptions]] = {}
        self._presets: dict[str, dict[str, Any]] = {}

    @functools.cached_property
    def _classes(self) -> Registry:
        from mmengine.registry import Registry  # a quarter of a second, which only those wait for who build a part

        return Registry(self.name, scope="mdg", locations=[self._package])

    def declare(self, **options: type[Options]) -> None:
        """Says what the options of components are, by type, whose classes a package registers later."""
        self._shipped |= options
        for key, model in options.items():
            self._add_options(key, model)

    def register(self, options: type[Options] = Options, name: str | None = None) -> Callable[[T], T]:
        """Class decorator: registers a component under its class name (or ``name``) with the schema of its options.

        Raises:
            ConfigError: A component that is shipped has that name and other options.
        """

        def decorate(cls: T) -> T:
            key = name or cls.__name__
            shipped = self.declared().get(key)
            if shipped not in (None, options):
                raise ConfigError(f"the {self.name} '{key}' is shipped with mdg: register yours under another name")
            self._classes.register_module(name=key, module=cls)
            if shipped is None:
                self._add_options(key, options)
            return cls

        return decorate

    def _add_options(self, key: str, options: type[Options]) -> None:
        model = _with_type(options, key)
        assert issubclass(model, ComponentOptions)  # the first of its bases
        model.registry = self
        self._options[key] = model

    def declared(self) -> dict[str, type[Options]]:
        """Options of the components that are shipped, by type."""
        importlib.import_module(self._declared_in)
        return self._shipped

    def preset(self, name: str, **options: Any) -> None:
        """Makes the plain string ``name`` a short form of ``options`` (``rgb_backbone: b2``)."""
        self._presets[name] = options

    def names(self) -> list[str]:
        """Types that a configuration may name, sorted."""
        self.declared()
        return sorted(self._options)

    def short_names(self) -> list[str]:
        """Plain strings that :meth:`parse` takes: presets, and types without a required option."""
        bare = [
            name for name in self.names() if not any(f.is_required() for f in self._options[name].model_fields.values())
        ]
        return [*self._presets, *bare]

    def options_of(self, type_name: str) -> type[ComponentOptions]:
        """The options model of a registered type; raises ConfigError naming the known types otherwise."""
        if type_name in self._presets:
            raise ConfigError(f"'{type_name}' is a short name; as a mapping it is {self._presets[type_name]}")
        if type_name not in self.names():
            known = [*self._presets, *self.names()]
            raise ConfigError(
                f"unknown {self.name} '{type_name}'; known: {', '.join(known)}.{nearest(type_name, known)}"
            )
        return self._options[type_name]

    def parse(self, value: Any) -> ComponentOptions:
        """Typed options from a preset name, a type name or a mapping with a ``type`` key.

        Raises:
            ConfigError: Unknown type. pydantic.ValidationError: options that do not fit the type's schema.
        """
        self.declared()
        if isinstance(value, ComponentOptions):
            return value
        if isinstance(value, str):
            value = self._presets.get(value, {"type": value})
        if not isinstance(value, dict) or not isinstance(value.get("type"), str):
            article = "an" if self.name[0] in "aeiou" else "a"
            raise ConfigError(
                f"expected {article} {self.name}: a mapping with a `type:` out of {', '.join(self.names())}"
                + (f", or one of the short names {', '.join(self._presets)}" if self._presets else "")
            )
        return self.options_of(value["type"]).model_validate(value)

    def create(self, options: Any, **context: Any) -> Any:
        """Builds a component from its options (anything :meth:`parse` takes) and what its constructor names of the
        caller's context."""
        options = self.parse(options)
        cls = self.get(options.type)
        parameters = inspect.signature(cls.__init__).parameters.values()
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            named = {parameter.name for parameter in parameters}
            context = {name: value for name, value in context.items() if name in named}
        return cls(options, **context)

    def get(self, type_name: str) -> Any:
        """The class of a registered type; raises ConfigError naming the known types otherwise."""
        self.options_of(type_name)
        self._classes.import_from_location()
        if type_name not in self._classes:  # in a file that its package does not name
            package = importlib.import_module(self._package)
            for module in pkgutil.walk_packages(package.__path__, f"{self._package}."):
                importlib.import_module(module.name)
        cls = self._classes.get(type_name)
        assert cls is not None, f"{self._package} registers no {type_name}"
        return cls


def _with_type(options: type[Options], key: str) -> type[Options]:
    # `type` is a plain string for pydantic (the registry has checked it); the JSON schema pins it with `const`.
    bases = (ComponentOptions,) if options is Options else (ComponentOptions, options)
    # There are no docstrings to extract here, and pydantic's search for the source takes a quarter of a second a model.
    return create_model(
        options.__name__,
        __base__=bases,
        __doc__=options.__doc__,
        __module__=options.__module__,
        __cls_kwargs__={"use_attribute_docstrings": False},
        type=(str, key),
    )


class _ComponentField:
    """pydantic glue of :func:`component`: validation by the registry, JSON schema as the union of its entries."""

    def __init__(self, registry: ComponentRegistry):
        self.registry = registry

    def _validate(self, value: Any) -> ComponentOptions:
        try:
            return self.registry.parse(value)
        except ValidationError as error:
            # Nested errors would lose their place; the loader unfolds them below the key of this component.
            raise PydanticCustomError("component", "invalid options", {"errors": error.errors()}) from None
        except ConfigError as error:
            raise PydanticCustomError("component_type", "{message}", {"message": str(error)}) from None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        dump = core_schema.plain_serializer_function_ser_schema(lambda options: options.model_dump(mode="json"))
        return core_schema.no_info_plain_validator_function(self._validate, serialization=dump)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        choices: list[dict[str, Any]] = []
        for name in self.registry.names():
            options = self.registry.options_of(name)
            reference = handler(options.__pydantic_core_schema__)
            target = handler.resolve_ref_schema(reference)
            target["properties"]["type"] = {"const": name, "type": "string"}
            target["required"] = sorted({*target.get("required", []), "type"})
            choices.append(reference)
        short = self.registry.short_names()
        return {"anyOf": [*([{"enum": short, "type": "string"}] if short else []), *choices]}


def component(registry: ComponentRegistry) -> Any:
    """Annotation of a pydantic field that holds one component of ``registry``."""
    return Annotated[ComponentOptions, _ComponentField(registry)]


def registry_of(field: FieldInfo) -> ComponentRegistry | None:
    """The registry whose components a field holds, alone or in a list; None for a field of plain values."""
    parts = [*field.metadata, *_parts(field.annotation)]
    return next((part.registry for part in parts if isinstance(part, _ComponentField)), None)


def _parts(annotation: Any) -> list[Any]:
    return [annotation, *(part for argument in get_args(annotation) for part in _parts(argument))]


MODELS = ComponentRegistry("model", "mdg.options.models", "mdg.models")
BACKBONES = ComponentRegistry("backbone", "mdg.options.models", "mdg.models.backbones")
INTERACTIONS = ComponentRegistry("interaction", "mdg.options.models", "mdg.models.interaction")
FUSIONS = ComponentRegistry("fusion", "mdg.options.models", "mdg.models.interaction")
DECODERS = ComponentRegistry("decoder", "mdg.options.models", "mdg.models.decoders")
LOSSES = ComponentRegistry("loss", "mdg.options.losses", "mdg.losses")
DATASETS = ComponentRegistry("data set", "mdg.options.datasets", "mdg.data")
TRANSFORMS = ComponentRegistry("transform", "mdg.options.transforms", "mdg.data")
OPTIMIZERS = ComponentRegistry("optimizer", "mdg.options.optim", "mdg.engine.optim")
METHODS = ComponentRegistry("method of training", "mdg.options.methods", "mdg.engine.methods")
SCHEDULES = ComponentRegistry("schedule", "mdg.options.optim", "mdg.engine.optim")
