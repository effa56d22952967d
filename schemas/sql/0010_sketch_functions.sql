-- DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019), relative accuracy 1 %.
-- Bin 0 is zero; bin b > 0 holds values in (g^(b-4097), g^(b-4096)] with g = 1.01/0.99, bin -b the negatives of them.
-- metering/sketch.ts is the same formula; a test compares the two.
CREATE FUNCTION sketch_value(bin int) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT CASE WHEN bin = 0 THEN 0::double precision
    ELSE sign(bin::double precision) * 2 * power(1.01::double precision / 0.99, abs(bin) - 4096) / (1 + 1.01::double precision / 0.99) END
$$;

CREATE FUNCTION sketch_quantile(bins int[], bin_counts bigint[], quantile double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT sketch_value(ranked.bin)
  FROM (
    SELECT u.bin, sum(u.n) OVER (ORDER BY u.bin) AS upto, sum(u.n) OVER () AS total
    FROM unnest(bins, bin_counts) AS u(bin, n)
  ) AS ranked
  WHERE ranked.upto > floor(quantile * (ranked.total - 1))
  ORDER BY ranked.bin
  LIMIT 1
$$;
