// A dashboard file drawn by @grafana/scenes, without a Grafana server: tools/draw_dashboards.py builds and opens this.
//
// From Grafana's own packages: variables and their queries, interpolation, time range, query runner, transformations,
// field options and overrides, the grid, panel frames, graphs, numbers, tables.  Written here, after what Grafana does:
// the registry of field options, the thin panels around @grafana/ui, the data source for Prometheus, the reading of the
// file.  Not published outside Grafana and therefore shown as text: state timelines and heat maps.  Left out:
// annotations, repeated panels, links.

import { Component } from "react";
import { createRoot } from "react-dom/client";
import { MemoryRouter } from "react-router-dom";
import { catchError, from, map, of } from "rxjs";
import * as D from "@grafana/data";
import { initPluginTranslations } from "@grafana/i18n";
import * as R from "@grafana/runtime";
import * as S from "@grafana/scenes";
import * as U from "@grafana/ui";

window.problems = [];
window.asked = [];
const theme = D.createTheme({ colors: { mode: "dark" } });
R.config.theme2 = theme;

// -- field options ----------------------------------------------------------------------------------------------------

const option = (id, process) => ({
  id, path: id, name: id, process, settings: {}, editor: () => null, override: () => null, shouldApply: () => true, getItemsCount: () => 0,
});
D.standardFieldConfigEditorRegistry.setInit(() => [
  option("unit", D.unitOverrideProcessor),
  option("min", D.numberOverrideProcessor),
  option("max", D.numberOverrideProcessor),
  option("decimals", D.numberOverrideProcessor),
  option("displayName", D.displayNameOverrideProcessor),
  option("mappings", D.valueMappingsOverrideProcessor),
  option("thresholds", D.thresholdsOverrideProcessor),
  ...["color", "noValue", "links", "description", "filterable"].map((id) => option(id, D.identityOverrideProcessor)),
]);
D.standardEditorsRegistry.setInit(() => []);
D.standardTransformersRegistry.setInit(() =>
  [D.standardTransformers.mergeTransformer, D.standardTransformers.organizeFieldsTransformer].map((each) => ({
    id: each.id, name: each.name, description: "", editor: () => null, transformation: async () => each,
  })),
);

// -- panels -----------------------------------------------------------------------------------------------------------

const CUSTOM = {  // the defaults of panels' own field options
  timeseries: {
    drawStyle: "line", lineWidth: 1, lineStyle: undefined, lineInterpolation: "linear", fillOpacity: 0, gradientMode: "none",
    showPoints: "auto", pointSize: 5, spanNulls: false, stacking: { mode: "none", group: "A" }, axisPlacement: "auto",
    scaleDistribution: { type: "linear" }, hideFrom: { tooltip: false, viz: false, legend: false }, thresholdsStyle: { mode: "off" },
  },
  table: { align: "auto", cellOptions: { type: "auto" }, width: undefined },
};

function Nothing({ width, height }) {
  return <div style={{ width, height, display: "grid", placeItems: "center" }}>No data</div>;
}

const finite = (frame) => ({
  ...frame,
  fields: frame.fields.map((field) => field.type === "number"
    ? { ...field, values: field.values.map((value) => Number.isFinite(value) ? value : null) } : field),
});

function Graph({ data, width, height, timeRange, options }) {
  if (!data.series.some((frame) => frame.length)) return <Nothing width={width} height={height} />;
  return (
    <U.TimeSeries frames={data.series.map(finite)} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={options.legend}
      options={options} theme={theme} structureRev={1} tweakScale={(scale) => scale} replaceVariables={(text) => text}>
      {() => null}
    </U.TimeSeries>
  );
}

function Stat({ data, width, height, options, fieldConfig, replaceVariables }) {
  const values = D.getFieldDisplayValues({
    fieldConfig, replaceVariables, theme, reduceOptions: options.reduceOptions, data: data.series, sparkline: options.graphMode !== "none", timeZone: "utc",
  });
  return (
    <div style={{ display: "flex" }}>
      {values.map((each, i) => (
        <U.BigValue key={i} value={each.display} sparkline={each.sparkline} colorMode={options.colorMode} graphMode={options.graphMode}
          textMode={options.textMode} justifyMode={options.justifyMode} width={width / values.length} height={height} theme={theme} />
      ))}
    </div>
  );
}

function Table({ data, width, height, options }) {
  const [frame] = data.series;
  if (!frame) return <Nothing width={width} height={height} />;
  return <U.Table data={frame} width={width} height={height} initialSortBy={options.sortBy} cellHeight={options.cellHeight} />;
}

function asText(kind) {
  return ({ data }) => (
    <div style={{ fontSize: 11 }}>
      {kind}, which is not published outside Grafana. Its newest values:
      {data.series.slice(0, 12).map((frame, i) => {
        const field = frame.fields.find((each) => each.type === "number");
        const shown = field && D.formattedValueToString(field.display(field.values.at(-1)));
        return <div key={i}>{field && D.getFieldDisplayName(field, frame, data.series)}: {shown}</div>;
      })}
    </div>
  );
}

const PANELS = { timeseries: Graph, stat: Stat, table: Table, "state-timeline": asText("A state timeline"), heatmap: asText("A heat map") };
const plugins = Object.fromEntries(Object.entries(PANELS).map(([id, component]) => {
  const plugin = new D.PanelPlugin(component).useFieldConfig({
    useCustomConfig: (builder) => {
      for (const [key, defaultValue] of Object.entries(CUSTOM[id] || {}))
        builder.addCustomEditor({ ...option(key, D.identityOverrideProcessor), defaultValue });
    },
  });
  plugin.meta = { id, name: id, info: { version: "1", logos: {} } };
  return [id, plugin];
}));
R.setPluginImportUtils({ importPanelPlugin: async (id) => plugins[id], getPanelPluginFromCache: (id) => plugins[id] });

// -- data -------------------------------------------------------------------------------------------------------------

const literal = (text) => String(text).replace(/[\\^$.*+?()[\]{}|]/g, "\\\\$&");
const inQuery = (value, variable) =>
  Array.isArray(value) ? `(${value.map(literal).join("|")})` : variable.multi ? literal(value) : String(value).replace(/\\/g, "\\\\");

class Prometheus extends D.DataSourceApi {
  filled(query, scoped) {
    const text = query.replaceAll("$__rate_interval", "20s");
    return scoped?.__sceneObject ? S.sceneGraph.interpolate(scoped.__sceneObject.value.valueOf(), text, scoped, inQuery) : text;
  }

  async ask(path, parameters) {
    const answer = await (await fetch(`/prometheus/api/v1/${path}?${new URLSearchParams(parameters)}`)).json();
    if (answer.status !== "success") throw new Error(`${answer.error}: ${parameters.query}`);
    return answer.data;
  }

  async target(target, { range, scopedVars }) {
    const query = this.filled(target.expr, scopedVars), start = range.from.unix(), end = range.to.unix();
    window.asked.push(query);
    const step = Math.max(1, Math.ceil((end - start) / 400)), instant = target.instant && !target.range;
    const { result } = instant ? await this.ask("query", { query, time: end }) : await this.ask("query_range", { query, start, end, step });
    if (target.format === "table") {
      const labels = [...new Set(result.flatMap((each) => Object.keys(each.metric)))];
      return [D.toDataFrame({ refId: target.refId, fields: [
        { name: "Time", type: "time", values: result.map((each) => 1000 * each.value[0]) },
        ...labels.map((name) => ({ name, type: "string", values: result.map((each) => each.metric[name] ?? "") })),
        { name: `Value #${target.refId}`, type: "number", values: result.map((each) => Number(each.value[1])) },
      ] })];
    }
    return result.map(({ metric, value, values = [value] }) => {
      const at = new Map(values.map(([time, text]) => [Number(time), Number(text)]));
      const times = instant ? [...at.keys()] : Array.from({ length: Math.floor((end - start) / step) + 1 }, (_, i) => start + i * step);
      const legend = target.legendFormat && target.legendFormat !== "__auto" && target.legendFormat.replace(/{{\s*(\w+)\s*}}/g, (_, label) => metric[label] ?? "");
      return D.toDataFrame({ refId: target.refId, name: legend || undefined, fields: [
        { name: "Time", type: "time", values: times.map((time) => 1000 * time) },
        { name: "Value", type: "number", labels: metric, values: times.map((time) => at.get(time) ?? null), config: legend ? { displayNameFromDS: legend } : {} },
      ] });
    });
  }

  query(request) {
    return from(Promise.all(request.targets.map((each) => this.target(each, request))).then((all) => ({ data: all.flat() })));
  }

  async metricFindQuery(query, { scopedVars } = {}) {
    const [, series, label] = /^label_values\((.*),\s*(\w+)\)$/.exec(this.filled(query.query ?? query, scopedVars));
    const found = await this.ask("series", { "match[]": series });
    return [...new Set(found.map((labels) => labels[label]))].sort().map((text) => ({ text, value: text }));
  }
}

const settings = {
  id: 1, uid: "prometheus", type: "prometheus", name: "Prometheus", jsonData: {}, access: "proxy", readOnly: false,
  meta: { id: "prometheus", name: "Prometheus", metrics: true, info: { logos: { small: "", large: "" } } },
};
const source = Object.assign(new Prometheus(settings), { meta: settings.meta });
R.setDataSourceSrv({ get: async () => source, getList: () => [settings], getInstanceSettings: () => settings, reload: () => {}, registerRuntimeDataSource: () => {} });
R.setTemplateSrv({ replace: (text) => text, getVariables: () => [], containsTemplate: () => false, updateTimeRange: () => {} });
R.setAppEvents(new D.EventBusSrv());
R.setRunRequest((_, request) => from(source.query(request)).pipe(
  map(({ data }) => ({ state: "Done", series: data, timeRange: request.range, request })),
  catchError((error) => {
    window.problems.push(String(error));
    return of({ state: "Error", series: [], timeRange: request.range, error: { message: String(error) } });
  }),
));

// -- the file as a scene ----------------------------------------------------------------------------------------------

function variable(each) {
  const { name, label } = each;
  if (each.type === "datasource") return new S.DataSourceVariable({ name, label, pluginId: each.query, value: settings.uid, text: settings.name });
  const all = each.includeAll ? { value: "$__all", text: "All", defaultToAll: true } : {};
  return new S.QueryVariable({
    name, label, ...all, datasource: { type: "prometheus", uid: "${datasource}" }, query: each.query, regex: each.regex, sort: each.sort,
    refresh: each.refresh, isMulti: each.multi, includeAll: each.includeAll, allValue: each.allValue,
  });
}

function panel({ id, type, title, description, options, fieldConfig, datasource, targets, transformations = [] }) {
  const queries = new S.SceneQueryRunner({ datasource, queries: targets });
  const $data = transformations.length ? new S.SceneDataTransformer({ $data: queries, transformations }) : queries;
  return new S.VizPanel({ key: `panel-${id}`, pluginId: type, title, description, options, fieldConfig, $data });
}

function scene(dashboard) {
  const children = dashboard.panels.map((each) => {
    const { x, y, w: width, h: height } = each.gridPos;
    return each.type === "row" ? new S.SceneGridRow({ title: each.title, y, children: [] }) : new S.SceneGridItem({ x, y, width, height, body: panel(each) });
  });
  return new S.EmbeddedScene({
    $timeRange: new S.SceneTimeRange({ from: "now-4m", to: "now" }),
    $variables: new S.SceneVariableSet({ variables: dashboard.templating.list.map(variable) }),
    controls: [new S.VariableValueSelectors({})],
    body: new S.SceneGridLayout({ children, isDraggable: false, isResizable: false }),
  });
}

class Boundary extends Component {
  state = {};

  static getDerivedStateFromError(error) {
    window.problems.push(String(error.stack));
    return { error };
  }

  render() {
    return this.state.error ? <pre>{String(this.state.error)}</pre> : this.props.children;
  }
}

const asked = new URLSearchParams(location.search);
const model = scene(await (await fetch(`/dashboards/${asked.get("dashboard")}.json`)).json());
for (const [name, value] of asked) model.state.$variables.getByName(name)?.setState({ value, text: value });
await initPluginTranslations("grafana-scenes", []);
createRoot(document.getElementById("root")).render(
  <Boundary>
    <D.ThemeContext.Provider value={theme}>
      <MemoryRouter>
        <R.LocationServiceProvider service={R.locationService}>
          <U.GlobalStyles />
          <U.PortalContainer />
          <div style={{ padding: 12, minHeight: "100vh", background: theme.colors.background.canvas }}>
            <model.Component model={model} />
          </div>
        </R.LocationServiceProvider>
      </MemoryRouter>
    </D.ThemeContext.Provider>
  </Boundary>,
);
