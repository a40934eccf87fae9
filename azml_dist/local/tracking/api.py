"""The rest of MLflow's REST API, served by MLflow's own file store: searches, other runs, models, the registry.

The endpoints are read from MLflow's own definitions, so that each version is served correctly.
"""

from __future__ import annotations

import re
import site
import sys
from collections.abc import Callable, Iterator, Sequence
from json import loads as parse_json
from pathlib import Path
from typing import Any

if site.getusersitepackages() not in sys.path:  # the server runs isolated, and jobs do not
    sys.path.append(site.getusersitepackages())

from mlflow import entities
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos import model_registry_pb2, service_pb2
from mlflow.store.model_registry.file_store import FileStore as Registry
from mlflow.store.tracking.file_store import FileStore
from mlflow.utils.proto_json_utils import message_to_json, parse_dict
from mlflow.utils.rest_utils import extract_all_api_info_for_service

from azml_dist.local.tracking import store
from azml_dist.local.tracking.store import Refused

Answer = Callable[[Any], "dict[str, Any]"]
"""Takes a request as a protobuf message, and returns the fields of its response."""


class Api:
    """MLflow's own stores in a root's folder, behind the requests that MLflow's clients send."""

    def __init__(self, root: Path, run: Path) -> None:
        folder = str(root / store.STORE)
        self._root, self._run = root, run
        self._tracking, self._registry = FileStore(folder, folder), Registry(folder)
        self._answers = {
            **self._of_runs(),
            **self._of_experiments(),
            **self._of_models(),
            **self._of_registered_models(),
            **self._of_model_versions(),
        }
        self._routes = list(_routes())

    def answer(self, method: str, path: str, query: dict[str, list[str]], sent: dict[str, Any]) -> dict[str, Any]:
        """The answer of MLflow's own server; raises `Refused`."""
        for verb, pattern, message in self._routes:
            if verb == method and (found := pattern.fullmatch(path)) and message.__name__ in self._answers:
                request = message()
                try:
                    parse_dict({**_typed(request, query), **sent, **found.groupdict()}, request)
                    fields = self._answers[message.__name__](request)
                except MlflowException as error:
                    raise Refused(error.message, error.error_code, error.get_http_status_code()) from error
                except (ValueError, TypeError) as error:
                    raise Refused(str(error)) from error
                answered: dict[str, Any] = parse_json(message_to_json(message.Response(**fields)))
                return answered
        raise Refused(
            f"{method} {path} is not supported by the tracking server of a local run", "ENDPOINT_NOT_FOUND", 404
        )

    def _of_runs(self) -> dict[str, Answer]:
        tracking = self._tracking
        return {
            "CreateRun": self._create_run,
            "GetRun": lambda m: {"run": tracking.get_run(m.run_id or m.run_uuid).to_proto()},
            "UpdateRun": lambda m: {
                "run_info": tracking.update_run_info(
                    m.run_id or m.run_uuid, _given(m, "status"), _given(m, "end_time"), _given(m, "run_name")
                ).to_proto()
            },
            "SearchRuns": lambda m: _page(
                "runs",
                tracking.search_runs(
                    list(m.experiment_ids),
                    m.filter,
                    m.run_view_type,
                    m.max_results,
                    list(m.order_by),
                    m.page_token or None,
                ),
            ),
            "DeleteRun": lambda m: _nothing(tracking.delete_run(m.run_id)),
            "RestoreRun": lambda m: _nothing(tracking.restore_run(m.run_id)),
            "DeleteTag": lambda m: _nothing(tracking.delete_tag(m.run_id, m.key)),
            "LogMetric": lambda m: _nothing(tracking.log_metric(m.run_id, entities.Metric.from_proto(m))),
            "LogBatch": lambda m: _nothing(
                tracking.log_batch(
                    m.run_id,
                    [entities.Metric.from_proto(one) for one in m.metrics],
                    [entities.Param.from_proto(one) for one in m.params],
                    [entities.RunTag.from_proto(one) for one in m.tags],
                )
            ),
            "GetMetricHistory": lambda m: _page(
                "metrics", tracking.get_metric_history(m.run_id or m.run_uuid, m.metric_key)
            ),
            "LogInputs": self._log_inputs,
            "LogModel": lambda m: _nothing(
                tracking.record_logged_model(m.run_id, Model.from_dict(parse_json(m.model_json)))
            ),
        }

    def _of_experiments(self) -> dict[str, Answer]:
        tracking = self._tracking
        return {
            "CreateExperiment": lambda m: {
                "experiment_id": tracking.create_experiment(
                    m.name, m.artifact_location or None, [entities.ExperimentTag(t.key, t.value) for t in m.tags]
                )
            },
            "GetExperiment": lambda m: {"experiment": tracking.get_experiment(m.experiment_id).to_proto()},
            "GetExperimentByName": self._experiment_by_name,
            "SearchExperiments": lambda m: _page(
                "experiments",
                tracking.search_experiments(
                    m.view_type, m.max_results, m.filter, list(m.order_by), m.page_token or None
                ),
            ),
            "UpdateExperiment": lambda m: _nothing(tracking.rename_experiment(m.experiment_id, m.new_name)),
            "DeleteExperiment": lambda m: _nothing(tracking.delete_experiment(m.experiment_id)),
            "RestoreExperiment": lambda m: _nothing(tracking.restore_experiment(m.experiment_id)),
            "SetExperimentTag": lambda m: _nothing(
                tracking.set_experiment_tag(m.experiment_id, entities.ExperimentTag(m.key, m.value))
            ),
        }

    def _of_models(self) -> dict[str, Answer]:
        """Models and traces that a run logs, which MLflow 3 records."""
        tracking = self._tracking
        return {
            "StartTraceV3": self._start_trace,
            "SetTraceTag": lambda m: _nothing(tracking.set_trace_tag(m.request_id, m.key, m.value)),
            "LogOutputs": lambda m: _nothing(
                tracking.log_outputs(m.run_id, [entities.LoggedModelOutput.from_proto(one) for one in m.models])
            ),
            "CreateLoggedModel": lambda m: {
                "model": tracking.create_logged_model(
                    experiment_id=m.experiment_id,
                    name=m.name or None,
                    source_run_id=m.source_run_id,
                    tags=[entities.LoggedModelTag(t.key, t.value) for t in m.tags],
                    params=[entities.LoggedModelParameter(p.key, p.value) for p in m.params],
                    model_type=m.model_type,
                ).to_proto()
            },
            "GetLoggedModel": lambda m: {"model": tracking.get_logged_model(m.model_id).to_proto()},
            "FinalizeLoggedModel": lambda m: {
                "model": tracking.finalize_logged_model(
                    m.model_id, entities.LoggedModelStatus.from_int(m.status)
                ).to_proto()
            },
            "DeleteLoggedModel": lambda m: _nothing(tracking.delete_logged_model(m.model_id)),
            "SetLoggedModelTags": lambda m: _nothing(
                tracking.set_logged_model_tags(
                    m.model_id, [entities.LoggedModelTag(tag.key, tag.value) for tag in m.tags]
                )
            ),
            "DeleteLoggedModelTag": lambda m: _nothing(tracking.delete_logged_model_tag(m.model_id, m.tag_key)),
            "LogLoggedModelParamsRequest": lambda m: _nothing(
                tracking.log_logged_model_params(
                    m.model_id, [entities.LoggedModelParameter(p.key, p.value) for p in m.params]
                )
            ),
            "SearchLoggedModels": lambda m: _page(
                "models",
                tracking.search_logged_models(
                    experiment_ids=list(m.experiment_ids),
                    filter_string=m.filter or None,
                    max_results=m.max_results or None,
                    order_by=[{"field_name": o.field_name, "ascending": o.ascending} for o in m.order_by] or None,
                    page_token=m.page_token or None,
                ),
            ),
        }

    def _of_registered_models(self) -> dict[str, Answer]:
        registry, tag = self._registry, entities.model_registry.RegisteredModelTag
        return {
            "CreateRegisteredModel": lambda m: {
                "registered_model": registry.create_registered_model(m.name, list(m.tags), m.description).to_proto()
            },
            "GetRegisteredModel": lambda m: {"registered_model": registry.get_registered_model(m.name).to_proto()},
            "UpdateRegisteredModel": lambda m: {
                "registered_model": registry.update_registered_model(m.name, m.description).to_proto()
            },
            "RenameRegisteredModel": lambda m: {
                "registered_model": registry.rename_registered_model(m.name, m.new_name).to_proto()
            },
            "DeleteRegisteredModel": lambda m: _nothing(registry.delete_registered_model(m.name)),
            "SearchRegisteredModels": lambda m: _page(
                "registered_models",
                registry.search_registered_models(m.filter, m.max_results, list(m.order_by), m.page_token or None),
            ),
            "GetLatestVersions": lambda m: {
                "model_versions": [
                    one.to_proto() for one in registry.get_latest_versions(m.name, list(m.stages) or None)
                ]
            },
            "SetRegisteredModelTag": lambda m: _nothing(registry.set_registered_model_tag(m.name, tag(m.key, m.value))),
            "DeleteRegisteredModelTag": lambda m: _nothing(registry.delete_registered_model_tag(m.name, m.key)),
            "SetRegisteredModelAlias": lambda m: _nothing(
                registry.set_registered_model_alias(m.name, m.alias, m.version)
            ),
            "DeleteRegisteredModelAlias": lambda m: _nothing(registry.delete_registered_model_alias(m.name, m.alias)),
            "GetModelVersionByAlias": lambda m: {
                "model_version": registry.get_model_version_by_alias(m.name, m.alias).to_proto()
            },
        }

    def _of_model_versions(self) -> dict[str, Answer]:
        registry, tag = self._registry, entities.model_registry.ModelVersionTag
        return {
            "CreateModelVersion": self._create_model_version,
            "GetModelVersion": lambda m: {"model_version": registry.get_model_version(m.name, m.version).to_proto()},
            "UpdateModelVersion": lambda m: {
                "model_version": registry.update_model_version(m.name, m.version, m.description).to_proto()
            },
            "TransitionModelVersionStage": lambda m: {
                "model_version": registry.transition_model_version_stage(
                    m.name, m.version, m.stage, m.archive_existing_versions
                ).to_proto()
            },
            "DeleteModelVersion": lambda m: _nothing(registry.delete_model_version(m.name, m.version)),
            "GetModelVersionDownloadUri": lambda m: {
                "artifact_uri": registry.get_model_version_download_uri(m.name, m.version)
            },
            "SearchModelVersions": lambda m: _page(
                "model_versions",
                registry.search_model_versions(m.filter, m.max_results, list(m.order_by), m.page_token or None),
            ),
            "SetModelVersionTag": lambda m: _nothing(
                registry.set_model_version_tag(m.name, m.version, tag(m.key, m.value))
            ),
            "DeleteModelVersionTag": lambda m: _nothing(registry.delete_model_version_tag(m.name, m.version, m.key)),
        }

    def _create_run(self, m: Any) -> dict[str, Any]:
        tags = [entities.RunTag(tag.key, tag.value) for tag in m.tags]
        made = self._tracking.create_run(m.experiment_id, m.user_id, m.start_time, tags, m.run_name)
        store.adopt(self._root, store.find_run(self._root, made.info.run_id), self._run)
        return {"run": made.to_proto()}

    def _start_trace(self, m: Any) -> dict[str, Any]:
        made = self._tracking.start_trace(entities.TraceInfo.from_proto(m.trace.trace_info))
        return {"trace": service_pb2.Trace(trace_info=made.to_proto())}

    def _log_inputs(self, m: Any) -> dict[str, Any]:
        models = [entities.LoggedModelInput.from_proto(one) for one in getattr(m, "models", ())]
        datasets = [entities.DatasetInput.from_proto(one) for one in m.datasets]
        return _nothing(self._tracking.log_inputs(m.run_id, datasets, **({"models": models} if models else {})))

    def _experiment_by_name(self, m: Any) -> dict[str, Any]:
        found = self._tracking.get_experiment_by_name(m.experiment_name)
        if found is None:
            raise Refused(f"Could not find experiment with name '{m.experiment_name}'", "RESOURCE_DOES_NOT_EXIST", 404)
        return {"experiment": found.to_proto()}

    def _create_model_version(self, m: Any) -> dict[str, Any]:
        of_a_model = {"model_id": m.model_id} if getattr(m, "model_id", "") else {}
        made = self._registry.create_model_version(
            m.name, m.source, m.run_id or None, list(m.tags), m.run_link or None, m.description or None, **of_a_model
        )
        return {"model_version": made.to_proto()}


def _routes() -> Iterator[tuple[str, re.Pattern[str], Any]]:
    """Method and path of each request that MLflow's clients can send."""
    for service in (service_pb2.MlflowService, model_registry_pb2.ModelRegistryService):
        for message, addresses in extract_all_api_info_for_service(service, "/api/VERSION").items():
            for path, verb in addresses:
                pattern = re.sub(r"[{<](\w+)[}>]", r"(?P<\1>[^/]+)", path).replace("VERSION", r"[23]\.0")
                yield verb, re.compile(pattern), message


def _typed(request: Any, query: dict[str, list[str]]) -> dict[str, Any]:
    """Query parameters as JSON values: lists if a parameter may be repeated, and booleans."""
    fields = request.DESCRIPTOR.fields_by_name
    found: dict[str, Any] = {}
    for key, values in query.items():
        if key in fields:
            several = isinstance(getattr(request, key), Sequence) and not isinstance(getattr(request, key), str)
            truths = {"true": True, "false": False} if isinstance(getattr(request, key), bool) else {}
            found[key] = values if several else truths.get(values[0].lower(), values[0])
    return found


def _given(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _page(field: str, found: Any) -> dict[str, Any]:
    token = {"next_page_token": found.token} if getattr(found, "token", None) else {}
    return {field: [one.to_proto() for one in found], **token}


def _nothing(_: object) -> dict[str, Any]:
    return {}
